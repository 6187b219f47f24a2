# frozen_string_literal: true

# Sends by the kernel what an app or a framework answers with a file.
module Hyperion
  module Http
    module Sendfile
      # Takes over the bodies that stand for a file, or for one range of it: those with a `to_path` (of Rack::Files, of
      # Rails' `send_file`, of Active Storage's disk service), and the ranges of Rack::Files.
      #
      #   use Hyperion::Http::Sendfile::Middleware
      #
      # Status, headers and their order stay as they are, and closing the new body closes the app's. What has no
      # content-length gets the file's, as from Puma. Left alone are
      # - small files, which servers join with the head,
      # - answers to HEAD, those without a body, with a transfer coding, or that hijack the connection,
      # - bodies in the wrapping of Rack::Lint, or of anything that does not pass calls on,
      # - files whose size is not what the headers say,
      # - connections to which a body may not write: encrypted ones but by {HTTP2}, and those of a server that is not
      #   known in this version, or a Falcon without {Falcon}.
      #
      # It belongs outermost, so that nothing changes the body behind it: first in config.ru, and by
      # `config.middleware.insert_before 0` in Rails. A body that is changed all the same, by compression say, sees to
      # it that it is read in pieces.
      class Middleware
        # Files up to this many bytes are left alone.
        SMALL = 32 * 1024
        CONTENT_RANGE = %r{\Abytes (\d+)-(\d+)/(\d+)\z}
        private_constant :SMALL, :CONTENT_RANGE

        # Closes the app's body, too.
        class TakenOver < FileBody
          # @param instead_of [#close, Object] the app's body
          def initialize(file, offset, length, instead_of:, destination:, timeout:)
            super(file, [[offset, length]], destination: destination, timeout: timeout)
            @instead_of = instead_of
          end

          # Closes both.
          def close
            super
          ensure
            @instead_of.close if @instead_of.respond_to?(:close)
          end
        end
        private_constant :TakenOver

        # @param app [#call]
        # @param timeout [Numeric, nil] seconds without a byte until a client is given up; nil is for ever
        # @raise [ArgumentError] an argument is not one of these
        def initialize(app, timeout: 30)
          raise ArgumentError, "app must respond to call, unlike #{app.inspect}" unless app.respond_to?(:call)

          @app = app
          @timeout = Options.timeout(timeout)
        end

        # @param env [Hash] Rack's environment
        # @return [Array(Integer, Hash, #each)] what the app says, perhaps with another body
        def call(env)
          status, headers, body = response = @app.call(env)
          return response unless for_a_file?(status.to_i, headers, body) && !env.key?("rack.hijack_io")

          socket = ServerSocket.for(env)
          (take_over(socket, status, headers, body) if socket) || response
        end

        private

        def for_a_file?(status, headers, body)
          (body.respond_to?(:to_path) || rack_files?(body)) && status >= 200 && status != 204 && status != 304 &&
            !headers.key?("rack.hijack") && !field(headers, "transfer-encoding") && !lint?(body)
        end

        # Rack::BodyProxy passes on the question for a private method, too; a wrapper that changes what it wraps does
        # not.
        def rack_files?(body)
          body.respond_to?(:each_range_part, true) && body.respond_to?(:path) && body.respond_to?(:ranges)
        end

        def lint?(body)
          defined?(::Rack::Lint::Wrapper) ? ::Rack::Lint::Wrapper === body : false
        end

        # Rack 2 leaves it to the app which letters of a name are capitals.
        def field(headers, name)
          headers[name] || headers.find { |key, _| key.casecmp?(name) }&.last
        end

        def take_over(socket, status, headers, body)
          path = body.respond_to?(:to_path) ? body.to_path : body.path
          path = path.to_path if path.respond_to?(:to_path) # a Pathname
          return unless String === path && !path.include?("\0")

          file, size = ReadAhead.beside_loop { open_regular(path) }
          return unless file && (region = region(size, headers, body))

          offset, length = region
          headers = headers.merge("content-length" => length.to_s) unless field(headers, "content-length")
          taken = TakenOver.new(file, offset, length, instead_of: body, destination: socket, timeout: @timeout)
          [status, headers, taken]
        rescue SystemCallError
          nil # what that means is for the server to say, when it asks the body
        ensure
          ReadAhead.close(file) if file && !taken
        end

        # @return [Array(File, Integer), nil] with its size; nil: it is no regular file
        def open_regular(path)
          file = nil
          return unless File.file?(path) # the other end of a FIFO can tell that it is opened

          # Non-blocking in case that it has become one. Interrupted, File.new never closes what it has opened.
          Thread.handle_interrupt(Transfer::NEVER) { file = File.new(path, File::RDONLY | File::NONBLOCK) }
          stat = ReadAhead.stat(file)
          found = [file, stat.size] if stat.file?
        ensure
          ReadAhead.close(file) if file && !found
        end

        # Small ranges, too: the body of Rack::Files has its file open until it is read to its end, and a server that
        # asks for one piece after another, as Falcon does, need not come there.
        #
        # @return [Array(Integer, Integer), nil] nil: not what the headers say, or too little
        def region(size, headers, body)
          offset = 0
          length = size
          if (content_range = field(headers, "content-range"))
            offset, length = range(size, content_range, body)
          elsif !body.respond_to?(:to_path)
            return # several ranges
          end
          announced = field(headers, "content-length")
          return unless length && (announced.nil? || announced == length.to_s)

          [offset, length] if length > SMALL || !body.respond_to?(:to_path)
        end

        def range(size, content_range, body)
          first, last, complete = CONTENT_RANGE.match(content_range)&.captures&.map(&:to_i)
          return unless complete == size && rack_files?(body) && body.ranges == [first..last]

          [first, last - first + 1]
        end
      end
    end
  end
end
