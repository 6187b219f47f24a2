# frozen_string_literal: true

# What the protocols for servers on async-http share: which bodies are regions of a file, and a stream that sends these
# behind what it has buffered.
require "io/stream"
require "protocol/http/body/wrapper"
require "protocol/http/headers"
require "hyperion/http/sendfile/rack"
require_relative "async_http/failures"
require_relative "async_http/foundations"

module Hyperion
  module Http
    module Sendfile
      # @api private
      module AsyncHTTP
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

        # What a wrapper may override and still pass on the bytes of what it wraps as they are.
        HARMLESS = %i[close empty? ready? rewind rewindable? inspect as_json to_json].freeze
        PLAIN = [::Protocol::HTTP::Body::Readable, ::Protocol::HTTP::Body::Wrapper].freeze
        # What decides which bytes a body is: whatever else async-http may call.
        DECIDING = (PLAIN.flat_map { |one| one.public_instance_methods(false) }.uniq - HARMLESS).freeze
        private_constant :HARMLESS, :PLAIN, :DECIDING

        # A Range that is malformed must be ignored (RFC 9110, 14.2), and that is for the app. Async-http's own policy
        # answers 400 to it, and takes 010 for eight.
        POLICY = ::Protocol::HTTP::Headers::POLICY.merge("range" => false).freeze
        private_constant :POLICY

        class << self
          # Leaves the field Range as the client sent it.
          #
          # @param headers [::Protocol::HTTP::Headers] of a request
          # @return [::Protocol::HTTP::Headers]
          def keep_range(headers)
            headers.policy = POLICY if headers.respond_to?(:policy=) # older versions do not parse it
            headers
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @return [FileBody, nil] what the app returned, if that is one; nil: something else, or something comes
          #   between that may change what is sent
          def regions_of(body)
            return unless defined?(::Protocol::Rack::Body::Enumerable) # there are apps without it
            return if !body.instance_of?(::Protocol::Rack::Body::Enumerable) || Foundations::RACK.off

            body = body.body
            body = body.instance_variable_get(:@body) while transparent_proxy?(body)
            body if FileBody === body && body.method(:each).owner.equal?(FileBody)
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @return [::Protocol::HTTP::Body::Readable] without the wrappers that pass its bytes on as they are: they
          #   only count it, or tell the app that it has been sent. Closing is for them, not for what this returns.
          def unwrapped(body)
            body = body.body while ::Protocol::HTTP::Body::Wrapper === body && transparent?(body)
            body
          end

          private

          # A class says nothing of it: apps and servers have wrappers of their own.
          def transparent?(body)
            DECIDING.all? { |name| PLAIN.include?(body.method(name).owner) }
          end

          # Rack::BodyProxy answers `each` by method_missing. A subclass, or what extends one, may answer by itself.
          def transparent_proxy?(body)
            defined?(::Rack::BodyProxy) && ::Rack::BodyProxy === body && !body.class.method_defined?(:each) &&
              body.singleton_methods.empty? && body.method(:method_missing).owner.equal?(::Rack::BodyProxy)
          end
        end
      end
      private_constant :AsyncHTTP
    end
  end
end
