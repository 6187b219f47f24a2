# frozen_string_literal: true

# A Rack body that consists of regions of one open file, with Strings before, between and after them.
require "io/nonblock"
require "stringio"

module Hyperion
  module Http
    module Sendfile
      # Sends its regions directly to the server's socket if that is known; otherwise yields them to the server in
      # pieces. Either way, it sends {#bytesize} bytes, which servers have announced, or raises, and servers then close
      # the connection.
      #
      # It has no `to_path`, because a server would open the path again, and could get another file than the one that
      # the headers describe.
      class FileBody
        # The most bytes that the server gets at a time.
        CHUNK = 64 * 1024
        # If there are several regions, one of up to this many bytes is read and sent together with its neighbours: a
        # separate call would cost more than copying the bytes.
        GATHERED = 4 * 1024
        private_constant :GATHERED

        # @return [File, nil] open until {#close}; nil: the body has only Strings
        attr_reader :file

        # @return [Array<String, Array(Integer, Integer)>] in the order in which they are sent: a String is sent as it
        #   is, and [offset, length] stands for bytes of the file
        attr_reader :segments

        # @return [Integer] the total of bytes, which is the content-length
        attr_reader :bytesize

        # @return [Numeric, nil] seconds without a byte before TimeoutError; nil: for ever
        attr_reader :timeout

        # @param file [IO, nil] open for reading; the body takes ownership. nil: the body has only Strings
        # @param segments [Array<String, Array(Integer, Integer)>] see {#segments}
        # @param destination [IO, nil] the server's socket, as {ServerSocket.for} finds it; nil: the server sends
        #   everything
        # @param timeout [Numeric, nil] seconds without a byte on that socket before TimeoutError; nil: for ever
        # @raise [ArgumentError] an argument is not one of these
        def initialize(file, segments, timeout:, destination: nil)
          raise ArgumentError, "file must be an open IO or nil, not #{file.inspect}" unless file.nil? || IO === file
          raise ArgumentError, "segments must be an Array, not #{segments.inspect}" unless Array === segments
          unless destination.nil? || IO === destination || Sendfile.tls?(destination) # only {HTTP2} does that
            raise ArgumentError, "destination must be an IO or nil, not #{destination.inspect}"
          end

          @file = file
          @segments = segments
          @destination = destination
          @timeout = Options.timeout(timeout)
          @bytesize = segments.sum { |segment| bytesize_of(segment) }
        end

        # Sends or yields everything, and closes the file, because some frameworks that wrap a body do not pass {#close}
        # on.
        #
        # @yieldparam chunk [String] up to {CHUNK} bytes of the file, or a String of the segments; nothing is yielded if
        #   there is a destination and the server itself iterates the body
        # @raise [TruncatedError] the file ends before a region does, or cannot be read
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

        # Sends everything to a socket. If that fails, the socket is closed, because a server may answer an exception
        # with a second head.
        #
        # @param socket [IO]
        # @param head [String, nil] is sent before everything else
        # @raise [TruncatedError, TimeoutError, SystemCallError, IOError] as {Sendfile.copy_to_socket}
        def copy_to(socket, head: nil)
          done = false
          socket.nonblock = true # unicorn's is blocking, and sendfile(2) must not wait for a slow reader
          send_segments(socket, head)
          done = true
        ensure
          socket.close unless done
        end

        # Closes the file. Servers call this after every response, however it ended.
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

        # A String is sent together with the region after it. Only the last call counts as a response.
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
        rescue EOFError, SystemCallError # always raised as an end of file, because servers then close the connection
          raise TruncatedError.new(sent, length)
        end
      end
    end
  end
end
