# frozen_string_literal: true

# A Rack body that is regions of one open file, with Strings before, between and behind them.
module Hyperion
  module Http
    module Sendfile
      # Sends its regions straight to the server's socket where that is known, else it hands them to the
      # server in pieces. Either way it sends {#bytesize} bytes, or raises, at which servers close the
      # connection: they have announced that many.
      #
      # It has no `to_path`: a server would open the path anew, and might get another file than the one
      # the headers speak of.
      class FileBody
        # Bytes that the server gets at a time.
        CHUNK = 64 * 1024

        # @return [File] open until {#close}
        attr_reader :file

        # @return [Array<String, Array(Integer, Integer)>] in the order in which they are sent: Strings as they
        #   are, and [offset, length] for bytes of the file
        attr_reader :segments

        # @return [Integer] bytes in all: what content-length says
        attr_reader :bytesize

        # @param file [File] open for reading; the body owns it from now on
        # @param segments [Array<String, Array(Integer, Integer)>] see {#segments}
        # @param destination [IO, nil] the socket itself, on which the server has written the head by the time it
        #   calls {#each}; nil: everything goes through the server
        # @param timeout [Numeric, nil] seconds without a byte on that socket before TimeoutError; nil is for ever
        def initialize(file, segments, timeout:, destination: nil)
          @file = file
          @segments = segments
          @destination = destination
          @timeout = timeout
          @bytesize = segments.sum { |segment| String === segment ? segment.bytesize : segment.last }
        end

        # Sends everything, or yields it.
        #
        # @yieldparam chunk [String] up to {CHUNK} bytes of the file, or a String of the segments; nothing is
        #   yielded where there is a destination
        # @raise [TruncatedError] the file is shorter than a region says
        # @raise [TimeoutError, SystemCallError, IOError] as {Sendfile.copy_to_socket}
        def each(&block)
          @destination ? send_to_socket : read_out(&block)
        end

        # Closes the file. Servers call it after every response, however that ended.
        def close
          @file.close
        end

        private

        # A String joins the region behind it.
        def send_to_socket
          head = nil
          @segments.each do |segment|
            if String === segment
              head = head ? head + segment : segment
            else
              Sendfile.copy_to_socket(@destination, @file, *segment, head: head, timeout: @timeout)
              head = nil
            end
          end
          Sendfile.copy_to_socket(@destination, @file, 0, 0, head: head, timeout: @timeout) if head
        end

        def read_out(&block)
          @segments.each do |segment|
            String === segment ? yield(segment) : read_region(*segment, &block)
          end
        end

        def read_region(offset, length)
          sent = 0
          while sent < length
            chunk = read_chunk(offset + sent, [length - sent, CHUNK].min) or raise TruncatedError.new(sent, length)
            yield chunk
            sent += chunk.bytesize
          end
        end

        # @return [String, nil] nil at the end of the file
        def read_chunk(offset, length)
          @file.pread(length, offset)
        rescue Errno::EINTR
          retry
        rescue EOFError
          nil
        end
      end
    end
  end
end
