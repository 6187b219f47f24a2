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
      # A protocol for the endpoint of a server. Bodies that are files, or regions of one, are sent as DATA frames by
      # {Sendfile.copy_data_frames}, and everything else as async-http does. Nothing is patched: the protocol is an
      # argument of the endpoint.
      #
      #     Async::HTTP::Endpoint.parse("https://localhost:9292", protocol: Hyperion::Http::Sendfile::HTTP2)
      #     protocol = Hyperion::Http::Sendfile::HTTP2.new(timeout: 10)
      #
      # If the versions of its gems are unknown, it warns once and behaves like async-http's own protocol: see
      # {supported?}. If one client could crash the process through the loaded protocol-http2, it warns once and serves
      # HTTP/1.1 instead.
      module HTTP2
        extend Async::HTTP::Protocol::Configurable

        # Seconds for which a client may leave a response without room in its windows.
        TIMEOUT = 30
        OPTIONS = %i[settings timeout].freeze
        private_constant :OPTIONS

        class << self
          # @return [Boolean] whether this gem sends files as DATA frames; false: the versions of the gems are unknown
          def supported?
            AsyncHTTP::Foundations::HTTP2.known?
          end

          # Makes a protocol with options, for an endpoint.
          #
          # @param options [Hash] the options of {server}
          # @return [Async::HTTP::Protocol::Configured]
          # @raise [ArgumentError] an option is unknown, or has a wrong value
          def new(**options)
            unknown = options.keys - OPTIONS
            raise ArgumentError, "unknown options: #{unknown.map(&:inspect).join(", ")}" unless unknown.empty?

            Options.timeout(options[:timeout])
            super
          end

          # Reads the preface of a client, and starts to read its frames.
          #
          # @param peer [IO, OpenSSL::SSL::SSLSocket, ::IO::Stream::Buffered] an accepted connection
          # @param settings [Hash{Integer=>Integer}] the server's, RFC 9113, section 6.5.2
          # @param timeout [Numeric, nil] seconds without progress, because the client's windows or its socket have no
          #   room, before a response is given up; nil: for ever. A {FileBody} has a timeout of its own.
          # @return [Async::HTTP::Protocol::HTTP2::Server] async-http's own if its version is unknown
          # @raise [ArgumentError] timeout is neither a number that is not negative nor nil
          def server(peer, settings: Async::HTTP::Protocol::HTTP2::SERVER_SETTINGS, timeout: TIMEOUT)
            Options.timeout(timeout)
            return ordinary(peer, settings) unless supported?

            peer = AsyncHTTP::Stream.wrap(peer) unless ::IO::Stream::Buffered === peer
            server = Server.new(peer, timeout)
            server.read_connection_preface(settings)
            server.start_connection
            server
          rescue ::Protocol::HTTP2::Error, EOFError, Errno::EPIPE, Errno::ECONNRESET => e
            raise e.extend(::Protocol::HTTP::BadRequest) # an error of the client, which async-http does not log
          end

          # async-http's own client: requests need nothing special.
          #
          # @param peer [IO] a connection
          # @return [Async::HTTP::Protocol::HTTP2::Client]
          def client(peer, **options)
            Async::HTTP::Protocol::HTTP2.client(peer, **options)
          end

          # @return [Array<String>] names for ALPN, if an encrypted endpoint uses this protocol
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
