# frozen_string_literal: true

# A Rack body that is regions of one open file, with Strings before, between and behind them.
require "io/nonblock"
require "stringio"

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
        # A region up to this many bytes, among others, is read and goes out with what is around it: a call of its own
        # costs more than its bytes.
        GATHERED = 4 * 1024
        private_constant :GATHERED

        # @return [File, nil] open until {#close}; nil: there are Strings only
        attr_reader :file

        # @return [Array<String, Array(Integer, Integer)>] in the order in which they are sent: Strings as they
        #   are, and [offset, length] for bytes of the file
        attr_reader :segments

        # @return [Integer] bytes in all: what content-length says
        attr_reader :bytesize

        # @return [Numeric, nil] seconds without a byte before TimeoutError; nil is for ever
        attr_reader :timeout

        # @param file [IO, nil] open for reading; the body owns it from now on. nil: there are Strings only
        # @param segments [Array<String, Array(Integer, Integer)>] see {#segments}
        # @param destination [IO, nil] the server's socket, as {ServerSocket.for} finds it; nil: everything goes
        #   through the server
        # @param timeout [Numeric, nil] seconds without a byte on that socket before TimeoutError; nil is for ever
        # @raise [ArgumentError] an argument is not one of these
        def initialize(file, segments, timeout:, destination: nil)
          raise ArgumentError, "file must be an open IO or nil, not #{file.inspect}" unless file.nil? || IO === file
          raise ArgumentError, "segments must be an Array, not #{segments.inspect}" unless Array === segments
          unless destination.nil? || IO === destination || Sendfile.tls?(destination) # by {HTTP2} only
            raise ArgumentError, "destination must be an IO or nil, not #{destination.inspect}"
          end

          @file = file
          @segments = segments
          @destination = destination
          @timeout = Options.timeout(timeout)
          @bytesize = segments.sum { |segment| bytesize_of(segment) }
        end

        # Sends everything, or yields it, and closes the file: not every framework that wraps a body passes {#close} on.
        #
        # @yieldparam chunk [String] up to {CHUNK} bytes of the file, or a String of the segments; nothing is
        #   yielded where there is a destination and the server itself iterates
        # @raise [TruncatedError] the file is shorter than a region says, or can't be read
        # @raise [TimeoutError, SystemCallError, IOError] as {Sendfile.copy_to_socket}
        def each(&block)
          return to_enum(:each) unless block

          if @destination && ServerSocket.open?(@destination, block, @bytesize)
            copy_to(@destination)
          else
            read_out(&block)
          end
        ensure
          close_file if block
        end

        # Sends everything to a socket. The socket is closed if that fails, because a server may answer an exception
        # with a second head.
        #
        # @param socket [IO]
        # @param head [String, nil] goes out before everything else
        # @raise [TruncatedError, TimeoutError, SystemCallError, IOError] as {Sendfile.copy_to_socket}
        def copy_to(socket, head: nil)
          done = false
          socket.nonblock = true # as unicorn's is not: sendfile(2) can wait for a slow reader only outside the kernel
          send_segments(socket, head)
          done = true
        ensure
          socket.close unless done
        end

        # Closes the file. Servers call it after every response, however that ended.
        def close
          close_file
        end

        private

        def close_file
          ReadAhead.close(@file) if @file
        end

        def bytesize_of(segment)
          return segment.bytesize if String === segment

          offset, length = segment if Array === segment && segment.size == 2
          unless Integer === offset && Integer === length && offset >= 0 && length >= 0
            raise ArgumentError, "segments must be Strings and [offset, length], not #{segment.inspect}"
          end
          raise ArgumentError, "segments has a region, #{segment.inspect}, but there is no file" unless @file

          length
        end

        # Strings join the region behind them. The last call is the one that counts as a response.
        def send_segments(socket, head)
          head &&= head.b
          gathered = 0
          @segments.each.with_index(1) do |segment, count|
            more = count < @segments.size
            if String === segment
              head = join(head, segment)
            elsif gather?(segment)
              read_region(*segment) { |chunk| head = join(head, chunk) }
              gathered += segment.last
            else
              send_region(socket, segment, head, !more)
              head = nil
            end
            head = send_region(socket, [0, 0], head, false) if more && head && head.bytesize >= CHUNK
          end
          send_region(socket, [0, 0], head, true) if head
          Stats.response(:small, gathered, false, nil)
        end

        def gather?(region)
          region.last <= GATHERED && @segments.size > 2
        end

        def join(head, string)
          head ? head << string.b : string.b
        end

        # @return [nil]
        def send_region(socket, region, head, last)
          by = last ? :copy_to_socket : :copy_part
          Sendfile.public_send(by, socket, @file || StringIO.new, *region, head: head, timeout: @timeout)
          nil
        end

        def read_out(&block)
          @segments.each do |segment|
            String === segment ? yield(segment) : read_region(*segment, &block)
          end
        end

        def read_region(offset, length)
          sent = 0
          while sent < length
            chunk = read_chunk(offset, length, sent)
            yield chunk
            sent += chunk.bytesize
          end
        end

        def read_chunk(offset, length, sent)
          ReadAhead.pread(@file, [length - sent, CHUNK].min, offset + sent)
        rescue Errno::EINTR
          retry
        rescue EOFError, SystemCallError # an end of file, whatever came: servers close the connection at that
          raise TruncatedError.new(sent, length)
        end
      end
    end
  end
end
