# frozen_string_literal: true

# Sends the files that an app or a framework answers with through the kernel.
module Hyperion
  module Http
    module Sendfile
      # Replaces bodies that stand for a file, or for one range of it: those with a `to_path` (of Rack::Files, of Rails'
      # `send_file`, of Active Storage's disk service), and the ranges of Rack::Files.
      #
      #   use Hyperion::Http::Sendfile::Middleware
      #
      # Status, headers and their order do not change, and closing the new body closes the app's. A response without a
      # content-length gets that of the file, as from Puma. These responses are left alone:
      # - small files, which servers send together with the head,
      # - answers to HEAD, and answers without a body, with a transfer coding, or that hijack the connection,
      # - bodies wrapped by Rack::Lint, or by any object that does not pass calls on,
      # - files whose size does not match the headers,
      # - responses on connections to which a body may not write: encrypted ones (except by {HTTP2}), those of an
      #   unknown server or version, and those of Falcon without {Falcon}.
      #
      # Put it outermost, so that nothing changes the body after it: first in config.ru, or by
      # `config.middleware.insert_before 0` in Rails. If another middleware wraps the body anyway, for example to
      # compress it, the body yields its bytes in pieces.
      class Middleware
        # Files of up to this many bytes are left alone.
        SMALL = 32 * 1024
        CONTENT_RANGE = %r{\Abytes (\d+)-(\d+)/(\d+)\z}
        private_constant :SMALL, :CONTENT_RANGE

        # A body that also closes the app's body.
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
        # @param timeout [Numeric, nil] close the connection if the client accepts no byte for this many seconds; nil:
        #   never
        # @raise [ArgumentError] an argument is not one of these
        def initialize(app, timeout: 30)
          raise ArgumentError, "app must respond to call, unlike #{app.inspect}" unless app.respond_to?(:call)

          @app = app
          @timeout = Options.timeout(timeout)
        end

        # @param env [Hash] Rack's environment
        # @return [Array(Integer, Hash, #each)] the app's response, perhaps with another body
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

        # respond_to? also asks for a private method: Rack::BodyProxy passes this question on, but a wrapper that
        # changes the body does not.
        def rack_files?(body)
          body.respond_to?(:each_range_part, true) && body.respond_to?(:path) && body.respond_to?(:ranges)
        end

        def lint?(body)
          defined?(::Rack::Lint::Wrapper) ? ::Rack::Lint::Wrapper === body : false
        end

        # On Rack 2, an app may use any capitalization for header names.
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
          nil # the server gets the same error from the app's own body, and reports it
        ensure
          ReadAhead.close(file) if file && !taken
        end

        # @return [Array(File, Integer), nil] the file and its size; nil: not a regular file
        def open_regular(path)
          file = nil
          return unless File.file?(path) # opening a FIFO would be noticed at its other end

          # Non-blocking, in case it has become a FIFO. Interrupts are deferred, because an interrupted File.new never
          # closes the descriptor that it has opened.
          Thread.handle_interrupt(Transfer::NEVER) { file = File.new(path, File::RDONLY | File::NONBLOCK) }
          stat = ReadAhead.stat(file)
          found = [file, stat.size] if stat.file?
        ensure
          ReadAhead.close(file) if file && !found
        end

        # Small ranges are replaced as well: the body of Rack::Files keeps its file open until it is read to its end,
        # and a server that reads piece by piece, as Falcon does, may never reach the end.
        #
        # @return [Array(Integer, Integer), nil] nil: the region does not match the headers, or is too small
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
