# frozen_string_literal: true

# Shared by the protocols for async-http servers: finds out which bodies are regions of a file, and has a stream that
# sends such regions after its buffer.
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
        # Sends the buffered head together with the first bytes of the body.
        class Stream < ::IO::Stream::Buffered
          # Sends the buffer, and the regions after it.
          #
          # @param regions [#copy_to] is called with the IO, and with the buffer as `head:`
          def flush_with(regions)
            @regions = regions
            @sender = Fiber.current
            flush
            send_regions if @regions
          ensure
            @regions = @sender = nil
          end

          # @return [Boolean] whether the buffer was perhaps not sent, after {#flush_with} has raised
          def head_lost?
            @head_lost
          end

          protected

          # Called by {flush}. A flush of another task, which has written and waited, can come first.
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

        # Methods that a wrapper may override without changing the bytes of the wrapped body.
        HARMLESS = %i[close empty? ready? rewind rewindable? inspect as_json to_json].freeze
        PLAIN = [::Protocol::HTTP::Body::Readable, ::Protocol::HTTP::Body::Wrapper].freeze
        # The other methods that async-http may call: they determine the bytes of a body.
        DECIDING = (PLAIN.flat_map { |one| one.public_instance_methods(false) }.uniq - HARMLESS).freeze
        private_constant :HARMLESS, :PLAIN, :DECIDING

        # A malformed Range must be ignored (RFC 9110, 14.2), which the app does. The policy of async-http answers 400
        # instead, and reads 010 as eight.
        POLICY = ::Protocol::HTTP::Headers::POLICY.merge("range" => false).freeze
        private_constant :POLICY

        class << self
          # Leaves the Range field as the client sent it.
          #
          # @param headers [::Protocol::HTTP::Headers] of a request
          # @return [::Protocol::HTTP::Headers]
          def keep_range(headers)
            headers.policy = POLICY if headers.respond_to?(:policy=) # older versions do not parse Range
            headers
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @return [FileBody, nil] the body that the app returned; nil: it is another body, or a wrapper may change its
          #   bytes
          def regions_of(body)
            return unless defined?(::Protocol::Rack::Body::Enumerable) # not every app uses protocol-rack
            return if !body.instance_of?(::Protocol::Rack::Body::Enumerable) || Foundations::RACK.off

            body = body.body
            body = body.instance_variable_get(:@body) while transparent_proxy?(body)
            body if FileBody === body && body.method(:each).owner.equal?(FileBody)
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @return [::Protocol::HTTP::Body::Readable] the body without the wrappers that do not change its bytes, but
          #   only count it, or tell the app that it was sent. Close the outermost wrapper, not the body that this
          #   returns.
          def unwrapped(body)
            body = body.body while ::Protocol::HTTP::Body::Wrapper === body && transparent?(body)
            body
          end

          private

          # Checks methods and not classes, because apps and servers have wrappers of their own.
          def transparent?(body)
            DECIDING.all? { |name| PLAIN.include?(body.method(name).owner) }
          end

          # Rack::BodyProxy answers `each` by method_missing. A subclass or a singleton method may answer differently.
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
