# frozen_string_literal: true

# The body of a file of which only reading to its end tells how large it is.
module Hyperion
  module Http
    module Sendfile
      class Files
        # A large file of /proc, or of a file system that says 0 for every size. The server sends it in chunks, or ends
        # the connection behind it.
        # @api private
        class Unsized
          # @param file [File] open for reading; the body owns it from now on
          def initialize(file)
            @file = file
          end

          # @yieldparam chunk [String]
          def each
            offset = 0
            while (chunk = chunk(offset))
              yield chunk
              offset += chunk.bytesize
            end
          ensure
            close
          end

          # Closes the file.
          def close
            ReadAhead.close(@file)
          end

          private

          def chunk(offset)
            ReadAhead.pread(@file, FileBody::CHUNK, offset)
          rescue Errno::EINTR
            retry
          rescue EOFError
            nil
          end
        end
      end
    end
  end
end
