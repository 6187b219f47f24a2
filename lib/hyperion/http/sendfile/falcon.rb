# frozen_string_literal: true

# HTTP/1 and HTTP/2 for Falcon and other async-http servers: `require "hyperion/http/sendfile/falcon"`.
require "async/http/protocol/http"
require "async/http/protocol/https"
require "protocol/http/error"
require "protocol/rack"
require "hyperion/http/sendfile/http2"

module Hyperion
  module Http
    module Sendfile
      # A protocol for the endpoint of a server. It sends a {FileBody} directly to the connection, and everything else
      # as async-http does. Nothing is patched: the protocol is an argument of the endpoint.
      #
      #     Async::HTTP::Endpoint.parse("http://localhost:9292", protocol: Hyperion::Http::Sendfile::Falcon)
      #
      # Like async-http's own protocol, it speaks HTTP/2 if the client begins with the preface of HTTP/2, or has
      # negotiated it: see {HTTP2}. Over HTTP/1, async-http itself sends the bodies of encrypted connections.
      #
      # If the versions of its gems are unknown, it warns once and behaves like async-http's own protocol: see
      # {supported?}.
      module Falcon
        extend Async::HTTP::Protocol::Configurable

        # An HTTP/1 connection.
        class Server < Async::HTTP::Protocol::HTTP1::Server
          # Older versions do not have this error.
          REMOTE = defined?(::Protocol::HTTP::RemoteError) ? ::Protocol::HTTP::RemoteError : nil
          private_constant :REMOTE

          def read_headers
            AsyncHTTP.keep_range(super)
          end

          def write_response(version, status, ...)
            @status = status
            super
          end

          # A 304 ends with its head, whatever its body is. It has no content-length, which would have to be that of the
          # file, not 0 (RFC 9110, 8.6).
          #
          # @param body [::Protocol::HTTP::Body::Readable, nil]
          def write_body(version, body, *)
            return super unless @status == 304

            begin
              write_connection_header(version)
              @stream.write("\r\n")
              quietly { @stream.flush }
              body&.close
            ensure
              send_end_stream!
            end
          end

          # Ends the head, and sends the body.
          #
          # @param body [::Protocol::HTTP::Body::Readable]
          # @param length [Integer] the announced content-length
          # @param head [Boolean] whether the request was a HEAD
          def write_fixed_length_body(body, length, head)
            regions = AsyncHTTP.regions_of(AsyncHTTP.unwrapped(body)) if response_socket && !head
            return super unless regions && regions.bytesize == length

            begin
              @stream.write("content-length: #{length}\r\n\r\n")
              quietly { @stream.flush_with(regions) }
            rescue StandardError => e
              raise
            ensure
              body.close(e)
              send_end_stream!
            end
          end

          # @return [BasicSocket, nil] nil: the connection is encrypted
          def response_socket
            @stream.io if AsyncHTTP::Stream === @stream && BasicSocket === @stream.io
          end

          private

          # A client that left or stalled is not an error of the server: async-http closes the connection, and logs no
          # error of its own.
          def quietly
            yield
          rescue Errno::EPIPE, Errno::ECONNRESET, TimeoutError => e
            AsyncHTTP::Failures.log(self, e) if TimeoutError === e
            raise REMOTE ? REMOTE.new(e.message) : e
          end
        end

        # Makes {Server}s.
        module HTTP1
          def self.server(stream, **options)
            Server.new(stream, Async::HTTP::Protocol::HTTP1::VERSION, **options)
          end
        end

        DETECTING = Async::HTTP::Protocol::HTTP.new(http1: HTTP1, http2: HTTP2)
        private_constant :Server, :HTTP1, :DETECTING

        class << self
          # @return [Boolean] whether a {FileBody} is sent directly to an HTTP/1 connection; false: the versions of the
          #   gems are unknown. {HTTP2.supported?} is the same for HTTP/2.
          def supported?
            AsyncHTTP::Foundations::HTTP1.known? && AsyncHTTP::Foundations::RACK.known?
          end

          # Makes a protocol with options, for an endpoint.
          #
          # @param http2 [Hash] options of {HTTP2.server}
          # @return [Async::HTTP::Protocol::Configured]
          # @raise [ArgumentError] as {HTTP2.new}
          def new(http2: {})
            HTTP2.new(**http2)
            super
          end

          # @param peer [IO, OpenSSL::SSL::SSLSocket] an accepted connection
          # @param http2 [Hash] options of {HTTP2.server}
          # @return [Async::HTTP::Protocol::HTTP1::Server, Async::HTTP::Protocol::HTTP2::Server]
          def server(peer, http2: {})
            stream = AsyncHTTP::Foundations::STREAM.known? ? AsyncHTTP::Stream.wrap(peer) : ::IO::Stream(peer)
            negotiated = peer.alpn_protocol if peer.respond_to?(:alpn_protocol)
            by_http2 = negotiated ? negotiated == "h2" : DETECTING.protocol_for(stream).equal?(HTTP2)
            by_http2 ? HTTP2.server(stream, **http2) : http1.server(stream)
          end

          # async-http's own client: requests need nothing special.
          #
          # @param peer [IO] a connection
          # @return [Async::HTTP::Protocol::HTTP1::Client]
          def client(peer, **options)
            Async::HTTP::Protocol::HTTP1.client(peer, **options)
          end

          # @return [Array<String>] names for ALPN, if an encrypted endpoint uses this protocol
          def names
            HTTP2.names | Async::HTTP::Protocol::HTTP1.names
          end

          private

          def http1
            return HTTP1 if supported?

            AsyncHTTP::Foundations::HTTP1.off || AsyncHTTP::Foundations::RACK.off
            Async::HTTP::Protocol::HTTP1
          end
        end
      end
    end
  end
end
