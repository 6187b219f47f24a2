# frozen_string_literal: true

# Finds the plain socket on which a server sends the response, and tells when a body may write to it.
module Hyperion
  module Http
    module Sendfile
      # Puma, unicorn and pitchfork write the head to their socket, and then iterate the body. Only then may the body
      # write to the socket itself. Earlier, the head has not been sent; and if another body iterates this one, for
      # example to compress it, these bytes are not those of the response. {for} finds the socket. {open?} recognises
      # the moment by the block that the server passes to `each`: its receiver is the server, and its local variables
      # say where the server writes and which length it has announced.
      #
      # @api private
      module ServerSocket
        # A server, and its known versions.
        class Server
          REMEDY = "Bodies go through the server. README.md names the versions to use; a newer hyperion-sendfile may " \
                   "know more."
          private_constant :REMEDY

          # @return [String] the key of its socket in Rack's environment
          attr_reader :key

          # @return [String] the name of the class whose instances iterate bodies
          attr_reader :name

          # @param key [String] see {#key}
          # @param name [String] see {#name}
          # @param version [String] the name of the constant that holds its version
          # @param versions [Array<String>] requirements of known versions, as RubyGems writes them
          # @yieldparam frame [Binding] of the block that it passes to `each`
          # @yieldparam bytesize [Integer] of the body
          # @yieldreturn [Boolean] whether it sends these bytes unchanged
          def initialize(key, name, version, *versions, &as_they_are)
            @key = key
            @name = name
            @version = version
            @versions = versions
            @as_they_are = as_they_are
          end

          # @return [Boolean] whether the loaded version is known
          def known?
            return @known if defined?(@known)

            @known = Versions.known?(Object.const_get(@version), @versions)
          rescue NameError
            @known = false
          end

          # Warns once if the loaded version is unknown.
          #
          # @return [Boolean] whether it is unknown
          def off
            return false if known?

            version = Object.const_defined?(@version) ? Object.const_get(@version) : "not defined"
            Notice.off("sending files by #{@name}", "#{@version} is #{version}, and #{@versions.join(", ")} are known",
                       REMEDY)
            true
          end

          # @return [Boolean] whether the block of that frame, which belongs to this server, writes to this socket
          def open?(frame, socket, bytesize)
            socket.equal?(frame.local_variable_get(:socket)) && @as_they_are.call(frame, bytesize)
          end
        end

        SERVERS = [
          # Up to 6.0.0, the head can still be in the buffer while a body is iterated.
          Server.new("puma.socket", "Puma::Server", "Puma::Const::PUMA_VERSION", ">= 6.0.1", "< 9") do |frame, bytesize|
            !frame.local_variable_get(:chunked) && frame.local_variable_get(:content_length) == bytesize &&
              frame.local_variable_get(:io_buffer).empty?
          end,
          # These two close the connection after each response, and use no transfer coding.
          Server.new("unicorn.socket", "Unicorn::HttpServer", "Unicorn::Const::UNICORN_VERSION", "~> 6.1") { true },
          Server.new("pitchfork.socket", "Pitchfork::HttpServer", "Pitchfork::VERSION", ">= 0.16", "< 0.19") { true }
        ].freeze
        private_constant :Server, :SERVERS

        class << self
          # @param env [Hash] Rack's environment
          # @return [IO, nil] nil: the server has to send the body, because the server or its version is unknown, the
          #   connection is encrypted, or the response has no body
          def for(env)
            return if env["REQUEST_METHOD"] == "HEAD" || elsewhere?

            server = SERVERS.find { |each| env.key?(each.key) }
            return falcons(env) || other(env) unless server
            return if server.off

            socket = env[server.key]
            socket if IO === socket && Sendfile.fast_path_kind(socket) == :native
          end

          # Whether the body may write to the socket: the server itself is iterating it, has sent the head, and has
          # announced this many bytes.
          #
          # @param socket [IO] the result of {for}
          # @param block [Proc] the block of the body's `each`
          # @param bytesize [Integer] of the body, in bytes
          # @return [Boolean]
          def open?(socket, block, bytesize)
            frame = block.binding
            iterating = frame.receiver.class.name
            server = SERVERS.find { |each| each.name == iterating }
            server ? server.open?(frame, socket, bytesize) : false
          rescue NameError, ArgumentError
            false # other variables than in the known versions, or a block written in C
          end

          private

          # Whether this is not the main Ractor. No known server calls an app in another one, where {SERVERS} cannot be
          # read.
          def elsewhere?
            defined?(::Ractor) && !Ractor.main.equal?(Ractor.current)
          end

          # Falcon iterates bodies in another way, and {Falcon} does not iterate a {FileBody} at all: it asks for its
          # regions.
          def falcons(env)
            request = env["protocol.http.request"]
            connection = request.connection if request.respond_to?(:connection)
            return unless connection

            connection.respond_to?(:response_socket) ? connection.response_socket : ordinary_falcon(connection)
          end

          # {Falcon} and {HTTP2} warn by themselves if they behave like async-http.
          def ordinary_falcon(connection)
            return if defined?(AsyncHTTP::Foundations) && !AsyncHTTP::Foundations.known?(connection)

            Notice.off("sending files by Falcon", "its endpoint has async-http's own protocol",
                       "Bodies go through the server. Give the endpoint `protocol: Hyperion::Http::Sendfile::Falcon`.")
            nil
          end

          # A server names itself in the environment; a test that calls an app without a server does not.
          def other(env)
            name = env["SERVER_SOFTWARE"]
            return if name.nil? || env.key?("protocol.http.request")

            Notice.off("sending files by the server", "#{name} is not one whose socket is known",
                       "Bodies go through the server. README.md lists the servers on which they do not.")
            nil
          end
        end
      end
    end
  end
end
