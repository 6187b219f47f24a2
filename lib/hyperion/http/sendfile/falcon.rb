# frozen_string_literal: true

# HTTP/1 for Falcon, and any other server on async-http: `require "hyperion/http/sendfile/falcon"`.
require "async/http/protocol/http"
require "protocol/rack"
require "hyperion/http/sendfile/rack"

module Hyperion
  module Http
    module Sendfile
      # A protocol for the endpoint of a server. It sends a {FileBody} straight to the connection, and everything else
      # as async-http does. Nothing is patched: the endpoint is told of it.
      #
      #     Async::HTTP::Endpoint.parse("http://localhost:9292", protocol: Hyperion::Http::Sendfile::Falcon)
      #
      # Like the protocol that it stands in for, it takes HTTP/2 where the client begins with its preface, and leaves
      # that to async-http. An encrypted connection gets the ordinary path, too.
      module Falcon
        # What was written of the head goes out with the body's first bytes.
        class Stream < ::IO::Stream::Buffered
          # Sends what is buffered, and the regions behind it.
          #
          # @param regions [FileBody]
          def flush_with(regions)
            @regions = regions
            flush
            send_regions if @regions
          end

          protected

          # What {flush} comes to.
          def syswrite(buffer)
            @regions ? send_regions(buffer) : super
          end

          private

          def send_regions(head = nil)
            regions = @regions
            @regions = nil
            regions.copy_to(io, head: head)
          end
        end

        # A connection.
        class Server < Async::HTTP::Protocol::HTTP1::Server
          # What {write_fixed_length_body} stands on, in the versions whose source was read.
          KNOWN = {
            ::Protocol::HTTP1::VERSION => [">= 0.34", "< 0.42"],
            ::Protocol::Rack::VERSION => [">= 0.11", "< 0.24"]
          }.all? { |version, known| Gem::Requirement.new(known).satisfied_by?(Gem::Version.new(version)) }
          private_constant :KNOWN

          def write_response(version, status, ...)
            @status = status
            super
          end

          # Ends the head. A 304 has no content-length: that would be the file's, not 0 (RFC 9110, 8.6).
          #
          # @param body [::Protocol::HTTP::Body::Readable, nil]
          def write_empty_body(body = nil)
            return super unless @status == 304 && KNOWN

            begin
              @stream.write("\r\n")
              @stream.flush
              body&.close
            ensure
              send_end_stream!
            end
          end

          # Ends the head, and sends the body.
          #
          # @param body [::Protocol::HTTP::Body::Readable]
          # @param length [Integer] what the response announces
          # @param head [Boolean] whether that is all that was asked for
          def write_fixed_length_body(body, length, head)
            regions = regions_of(body) if plain_socket && !head
            return super unless regions && regions.bytesize == length

            begin
              @stream.write("content-length: #{length}\r\n\r\n")
              @stream.flush_with(regions)
            rescue StandardError => e
              raise
            ensure
              body.close(e)
              send_end_stream!
            end
          end

          # @return [BasicSocket, nil] nil: encrypted, or served by versions of async-http's parts that are not known
          def plain_socket
            @stream.io if KNOWN && Stream === @stream && BasicSocket === @stream.io
          end

          private

          # @return [FileBody, nil] what the app returned, if that is one, bare or in Rack::BodyProxy; nil: something
          #   else, or something comes between that may change what is sent, though it pass on every call
          def regions_of(body)
            body = body.body if body.instance_of?(::Protocol::HTTP::Body::Completable)
            return unless body.instance_of?(::Protocol::Rack::Body::Enumerable)

            body = body.body
            body = body.instance_variable_get(:@body) while body.instance_of?(::Rack::BodyProxy)
            body if FileBody === body
          end
        end

        # Makes {Server}s.
        module HTTP1
          def self.server(stream, **options)
            Server.new(stream, Async::HTTP::Protocol::HTTP1::VERSION, **options)
          end
        end

        DETECTING = Async::HTTP::Protocol::HTTP.new(http1: HTTP1)
        private_constant :Stream, :Server, :HTTP1, :DETECTING

        class << self
          # @param peer [IO] an accepted connection
          # @return [Async::HTTP::Protocol::HTTP1::Server, Async::HTTP::Protocol::HTTP2::Server]
          def server(peer, **options)
            DETECTING.server(Stream.wrap(peer), **options)
          end

          # As async-http's own: there is nothing special in asking.
          #
          # @param peer [IO] a connection
          # @return [Async::HTTP::Protocol::HTTP1::Client]
          def client(peer, **options)
            Async::HTTP::Protocol::HTTP1.client(peer, **options)
          end

          # @return [Array<String>] for ALPN, where an encrypted endpoint is given this protocol
          def names
            Async::HTTP::Protocol::HTTP1.names
          end
        end
      end
    end
  end
end
