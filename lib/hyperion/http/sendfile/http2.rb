# frozen_string_literal: true

# HTTP/2 for servers on async-http: `require "hyperion/http/sendfile/http2"`.
require "async/http/protocol/http1"
require "async/http/protocol/http2"
require "protocol/http/body/buffered"
require "protocol/http/body/file"
require "hyperion/http/sendfile/async_http"

module Hyperion
  module Http
    module Sendfile
      # A protocol for the endpoint of a server. Bodies that are files, or regions of one, go out as DATA frames by
      # {Sendfile.copy_data_frames}, and everything else as async-http sends it. Nothing is patched: the endpoint is
      # told of it.
      #
      #     Async::HTTP::Endpoint.parse("https://localhost:9292", protocol: Hyperion::Http::Sendfile::HTTP2)
      #     protocol = Hyperion::Http::Sendfile::HTTP2.new(timeout: 10)
      #
      # With gems below that are not known, it warns once and is async-http's own protocol: see {supported?}. With a
      # protocol-http2 that one client can end the process by, it warns once and serves HTTP/1.1 instead.
      module HTTP2
        extend Async::HTTP::Protocol::Configurable

        # Seconds that a client may leave a response without room.
        TIMEOUT = 30
        OPTIONS = %i[settings timeout].freeze
        private_constant :OPTIONS

        class << self
          # @return [Boolean] whether files go out as DATA frames of ours; false: the gems below are not known
          def supported?
            AsyncHTTP::Foundations::HTTP2.known?
          end

          # For an endpoint.
          #
          # @param options [Hash] those of {server}
          # @return [Async::HTTP::Protocol::Configured]
          # @raise [ArgumentError] there is no such option, or it has no such value
          def new(**options)
            unknown = options.keys - OPTIONS
            raise ArgumentError, "unknown options: #{unknown.map(&:inspect).join(", ")}" unless unknown.empty?

            Options.timeout(options[:timeout])
            super
          end

          # Reads a client's preface, and starts to read its frames.
          #
          # @param peer [IO, OpenSSL::SSL::SSLSocket, ::IO::Stream::Buffered] an accepted connection
          # @param settings [Hash{Integer=>Integer}] the server's, RFC 9113, section 6.5.2
          # @param timeout [Numeric, nil] seconds without a byte, be it that the client's windows have no room or its
          #   socket, until a response is given up; nil is for ever. A {FileBody} has its own.
          # @return [Async::HTTP::Protocol::HTTP2::Server] of a version that is not known: async-http's own
          # @raise [ArgumentError] timeout is not such a number
          def server(peer, settings: Async::HTTP::Protocol::HTTP2::SERVER_SETTINGS, timeout: TIMEOUT)
            Options.timeout(timeout)
            return ordinary(peer, settings) unless supported?

            peer = AsyncHTTP::Stream.wrap(peer) unless ::IO::Stream::Buffered === peer
            server = Server.new(peer, timeout)
            server.read_connection_preface(settings)
            server.start_connection
            server
          rescue ::Protocol::HTTP2::Error, EOFError, Errno::EPIPE, Errno::ECONNRESET => e
            raise e.extend(::Protocol::HTTP::BadRequest) # the client's fault, so async-http does not log it
          end

          # As async-http's own: there is nothing special in asking.
          #
          # @param peer [IO] a connection
          # @return [Async::HTTP::Protocol::HTTP2::Client]
          def client(peer, **options)
            Async::HTTP::Protocol::HTTP2.client(peer, **options)
          end

          # @return [Array<String>] for ALPN, where an encrypted endpoint is given this protocol
          def names
            AsyncHTTP::Foundations.unsafe? ? Async::HTTP::Protocol::HTTP1.names : Async::HTTP::Protocol::HTTP2.names
          end

          private

          def ordinary(peer, settings)
            return Async::HTTP::Protocol::HTTP1.server(peer) if AsyncHTTP::Foundations.refused

            AsyncHTTP::Foundations::HTTP2.off
            Async::HTTP::Protocol::HTTP2.server(peer, settings: settings)
          end
        end

        require_relative "http2/server" if supported?
      end
    end
  end
end
