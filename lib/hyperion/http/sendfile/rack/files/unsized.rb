# frozen_string_literal: true

# The body of a file whose size is only known after reading it to its end.
module Hyperion
  module Http
    module Sendfile
      class Files
        # A large file of /proc, or of a file system that reports 0 as every size. The server sends it in chunks, or
        # closes the connection after it.
        # @api private
        class Unsized
          # @param file [File] open for reading; the body takes ownership
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
