# frozen_string_literal: true

# Finds the plain socket on which a server sends the response, and says when a body may write to it.
module Hyperion
  module Http
    module Sendfile
      # Puma, unicorn and pitchfork write the head to their socket, then iterate the body. A body may write there
      # itself in that moment and in no other: earlier there is no head on the wire, and where another body
      # iterates it, a compressing one say, its bytes are not the response's. {for} finds the socket, {open?}
      # recognises the moment by the block that the server iterates with: its receiver is the server, and the
      # variables around it say where it writes and what it has announced.
      #
      # @api private
      module ServerSocket
        # A server, in the versions whose source was read.
        class Server
          REMEDY = "Bodies go through the server. README.md names the versions to use; a newer hyperion-sendfile may " \
                   "know more."
          private_constant :REMEDY

          # @return [String] under which it puts its socket into Rack's environment
          attr_reader :key

          # @return [String] the class whose instances iterate bodies
          attr_reader :name

          # @param key [String] see {#key}
          # @param name [String] see {#name}
          # @param version [String] the constant that holds its version
          # @param versions [Array<String>] those known, as RubyGems writes them
          # @yieldparam frame [Binding] of the block that it iterates with
          # @yieldparam bytesize [Integer] of the body
          # @yieldreturn [Boolean] whether it sends those bytes as they are
          def initialize(key, name, version, *versions, &as_they_are)
            @key = key
            @name = name
            @version = version
            @versions = versions
            @as_they_are = as_they_are
          end

          # @return [Boolean] whether the version that is loaded is one of those known
          def known?
            return @known if defined?(@known)

            @known = Versions.known?(Object.const_get(@version), @versions)
          rescue NameError
            @known = false
          end

          # Warns, once, if the version is not one of those known.
          #
          # @return [Boolean] whether it is not
          def off
            return false if known?

            version = Object.const_defined?(@version) ? Object.const_get(@version) : "not defined"
            Notice.off("sending files by #{@name}", "#{@version} is #{version}, and #{@versions.join(", ")} are known",
                       REMEDY)
            true
          end

          # @return [Boolean] whether the block of that frame, which is this server's, writes to this socket
          def open?(frame, socket, bytesize)
            socket.equal?(frame.local_variable_get(:socket)) && @as_they_are.call(frame, bytesize)
          end
        end

        SERVERS = [
          # Up to 6.0.0 the head can still be in the buffer while a body is iterated.
          Server.new("puma.socket", "Puma::Server", "Puma::Const::PUMA_VERSION", ">= 6.0.1", "< 9") do |frame, bytesize|
            !frame.local_variable_get(:chunked) && frame.local_variable_get(:content_length) == bytesize &&
              frame.local_variable_get(:io_buffer).empty?
          end,
          # These two end each response with its connection, and know no transfer coding.
          Server.new("unicorn.socket", "Unicorn::HttpServer", "Unicorn::Const::UNICORN_VERSION", "~> 6.1") { true },
          Server.new("pitchfork.socket", "Pitchfork::HttpServer", "Pitchfork::VERSION", ">= 0.16", "< 0.19") { true }
        ].freeze
        private_constant :Server, :SERVERS

        class << self
          # @param env [Hash] Rack's environment
          # @return [IO, nil] nil: the body has to go through the server, since it is one whose ways are not
          #   known in this version, its connection is encrypted, or there will be no body
          def for(env)
            return if env["REQUEST_METHOD"] == "HEAD" || elsewhere?

            server = SERVERS.find { |each| env.key?(each.key) }
            return falcons(env) || other(env) unless server
            return if server.off

            socket = env[server.key]
            socket if IO === socket && Sendfile.fast_path_kind(socket) == :native
          end

          # Whether the server itself is iterating, with the head on the wire and this many bytes announced, so
          # that the body may write to the socket.
          #
          # @param socket [IO] what {for} returned
          # @param block [Proc] what the body's `each` was given
          # @param bytesize [Integer] the body's
          # @return [Boolean]
          def open?(socket, block, bytesize)
            frame = block.binding
            iterating = frame.receiver.class.name
            server = SERVERS.find { |each| each.name == iterating }
            server ? server.open?(frame, socket, bytesize) : false
          rescue NameError, ArgumentError
            false # other variables than in the versions known, or a block written in C
          end

          private

          # No known server calls an app in another Ractor than the first; and there, {SERVERS} can't be read.
          def elsewhere?
            defined?(::Ractor) && !Ractor.main.equal?(Ractor.current)
          end

          # Falcon iterates bodies otherwise, and {Falcon} never does: that asks a {FileBody} for its regions.
          def falcons(env)
            request = env["protocol.http.request"]
            connection = request.connection if request.respond_to?(:connection)
            return unless connection

            connection.respond_to?(:response_socket) ? connection.response_socket : ordinary_falcon(connection)
          end

          # {Falcon} and {HTTP2} say themselves when they serve as async-http does.
          def ordinary_falcon(connection)
            return if defined?(AsyncHTTP::Foundations) && !AsyncHTTP::Foundations.known?(connection)

            Notice.off("sending files by Falcon", "its endpoint has async-http's own protocol",
                       "Bodies go through the server. Give the endpoint `protocol: Hyperion::Http::Sendfile::Falcon`.")
            nil
          end

          # A server says who it is; what calls an app without one, as a test does, says nothing.
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
