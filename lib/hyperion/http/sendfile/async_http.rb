# frozen_string_literal: true

# What the protocols for servers on async-http share: which bodies are regions of a file, and a stream that sends these
# behind what it has buffered.
require "io/stream"
require "hyperion/http/sendfile/rack"

module Hyperion
  module Http
    module Sendfile
      # @api private
      module AsyncHTTP
        # Of protocol-rack, the versions whose source was read.
        RACK = [">= 0.11", "< 0.24"].freeze

        # What was written of a head goes out with the body's first bytes.
        class Stream < ::IO::Stream::Buffered
          # Sends what is buffered, and the regions behind it.
          #
          # @param regions [#copy_to] gets the IO, and what is buffered as `head:`
          def flush_with(regions)
            @regions = regions
            @sender = Fiber.current
            flush
            send_regions if @regions
          ensure
            @regions = @sender = nil
          end

          # @return [Boolean] whether what was buffered may not be out, after {#flush_with} has raised
          def head_lost?
            @head_lost
          end

          protected

          # What {flush} comes to. Another task's may come in between: it had written, and has waited to flush.
          def syswrite(buffer)
            Fiber.current.equal?(@sender) && @regions ? send_regions(buffer) : super
          end

          private

          def send_regions(head = nil)
            regions = @regions
            @regions = nil
            @head_lost = false
            regions.copy_to(io, head: head)
          rescue Progress => e
            @head_lost = !head.nil? && e.bytes_sent.zero?
            raise
          end
        end

        class << self
          # @param versions [Hash{String=>Array<String>}] requirements, as RubyGems writes them, by version
          # @return [Boolean] whether each version is one of those whose source was read
          def known?(versions)
            versions.all? { |version, known| Versions.known?(version, known) }
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @return [FileBody, nil] what the app returned, if that is one, bare or in Rack::BodyProxy; nil: something
          #   else, or something comes between that may change what is sent, though it pass on every call
          def regions_of(body)
            return unless racks?(body)

            body = body.body
            body = body.instance_variable_get(:@body) while body.instance_of?(::Rack::BodyProxy)
            body if FileBody === body
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @param timeout [Numeric, nil]
          # @return [FileBody, nil] what the app returned, if that is Strings in an Array
          def strings_of(body, timeout)
            return unless racks?(body) && body.body.instance_of?(Array) && body.body.all?(String)

            FileBody.new(nil, body.body, timeout: timeout)
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @return [::Protocol::HTTP::Body::Readable] without what only tells the app that it has been sent
          def uncovered(body)
            body.instance_of?(::Protocol::HTTP::Body::Completable) ? body.body : body
          end

          private

          def racks?(body)
            rack? && body.instance_of?(::Protocol::Rack::Body::Enumerable)
          end

          # There are apps without it.
          def rack?
            return @rack if defined?(@rack)
            return false unless defined?(::Protocol::Rack::Body)

            @rack = known?({ ::Protocol::Rack::VERSION => RACK })
          end
        end
      end
      private_constant :AsyncHTTP
    end
  end
end
