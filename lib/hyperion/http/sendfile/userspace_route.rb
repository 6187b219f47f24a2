# frozen_string_literal: true

# From any source to any destination through one reused buffer: TLS connections, wrappers, sources other than files.
module Hyperion
  module Http
    module Sendfile
      # @api private
      class UserspaceRoute
        # @return [true]
        def self.run(transfer, waiter)
          return TlsRoute.run(transfer, waiter) if Sendfile.tls?(transfer.out)

          transfer.route = :userspace
          from_memory(transfer, waiter)
        end

        # @return [true]
        def self.from_memory(transfer, waiter)
          Loop.run(transfer, waiter, new(transfer, waiter), reads_beside: true)
        end

        def initialize(transfer, waiter)
          @source = transfer.reader
          @waiter = waiter
          @chunk = Sendfile.tls?(transfer.out) && !transfer.frames ? TlsRoute::RECORD : USERSPACE_CHUNK
          @writer = writer_for(transfer.out)
          @copies = transfer.io || copies?(transfer.out)
          @buffer = @copies ? room_for(transfer) : +""
          @written = 0 # bytes of the buffer
        end

        # Up to USERSPACE_CHUNK bytes, as a step of {Loop}.
        def call(transfer)
          stop = transfer.sent + USERSPACE_CHUNK
          status = :partial
          while status == :partial && transfer.sent < stop && !transfer.complete?
            return :eof if @written == @buffer.bytesize && refill(transfer).empty?

            status = @writer.call(transfer)
          end
          status
        end

        private

        # Whether write copies its argument at once. A StringIO does, unless it overrides write.
        def copies?(out)
          defined?(StringIO) && StringIO === out && out.method(:write).owner.equal?(StringIO)
        end

        def writer_for(out)
          return method(:write_record) if RUBY_ENGINE == "jruby" && Sendfile.tls?(out)
          return method(:write_descriptor) if EXTENSION && (IO === out || Integer === out)
          return method(:write_tls) if Sendfile.tls?(out)
          return method(:write_nonblock) if IO === out || Integer === out

          method(:write_whole)
        end

        # No larger than necessary: above a certain size, malloc asks the kernel for memory each time.
        def room_for(transfer)
          left = transfer.remaining
          String.new(capacity: left && left < @chunk ? left : @chunk)
        end

        # Reads the next piece of the source, after the rest of the head, if any.
        def refill(transfer)
          @written = 0
          @buffer = room_for(transfer) unless @copies
          head = transfer.head_left? ? transfer.head.byteslice(transfer.head_sent..) : nil
          length = transfer.next_chunk(head && head.bytesize < @chunk ? @chunk - head.bytesize : @chunk)
          length.zero? ? @buffer.clear : read(length, transfer)
          @buffer = head.b << @buffer if head
          @buffer
        end

        # Waiting for a stream counts against the timeout; waiting for a disk does not.
        def read(length, transfer)
          return read_stream(length, transfer) if Sources::Stream === @source

          transfer.apart_from_peer { @waiter.read(transfer, length) { fill(length, transfer) } }
        end

        # By the caller's own thread: another one would still take bytes of the stream after the caller was interrupted.
        def read_stream(length, transfer)
          return within(transfer) { fill(length, transfer) } unless @source.io

          wait_for_source(transfer)
          @waiter.run { fill(length, transfer) }
        end

        def fill(length, transfer)
          @source.read(length, transfer.position, @buffer)
        end

        # A fiber that is killed inside an IO's read would leave its entry in the list of that IO's waiters. Therefore
        # wait first.
        def wait_for_source(transfer)
          loop do
            left = transfer.time_left
            raise transfer.timed_out if left&.negative?

            patience = [left, Waiters::LOOK_AGAIN].compact.min
            break if @waiter.run { @source.io.wait_readable(patience) }
          end
        end

        def unwritten
          @written.zero? ? @buffer : @buffer.byteslice(@written..)
        end

        def wrote(bytes, transfer)
          @written += bytes
          transfer.advance_through_head(bytes)
        end

        # A plain descriptor: send and wait in C.
        def write_descriptor(transfer)
          timeout = @waiter.steps_wait? && transfer.timeout
          status = Native.transfer(transfer.out, nil, 0, 0, :buffered, @buffer, @written, timeout,
                                   transfer.report?, transfer.ktls?) { |_, bytes| wrote(bytes, transfer) }
          status == :done ? :partial : status
        end

        def write_nonblock(transfer)
          transfer.uninterrupted { write_some(Integer === transfer.out ? transfer.io : transfer.out, transfer) }
        end

        # OpenSSL accepts at most one record. The rest must be given to it again, unchanged.
        def write_tls(transfer)
          transfer.uninterrupted { transfer.in_doubt { write_some(transfer.out, transfer) } }
        end

        def write_some(out, transfer)
          data = unwritten
          case written = Native.without_sigpipe { out.write_nonblock(data, exception: false) }
          when :wait_writable then :eagain
          when :wait_readable then :want_read
          else
            wrote(written, transfer)
            :partial
          end
        end

        # If the socket does not accept all of an encrypted record, JRuby's write_nonblock may lose the rest, and its
        # syswrite spins until all is accepted, and ignores Timeout. Therefore the socket must have room first.
        def write_record(transfer)
          return :eagain unless @waiter.wait(transfer.io, true, 0)

          data = unwritten.byteslice(0, sure_room(transfer.io))
          wrote(transfer.in_doubt { transfer.out.syswrite(data) }, transfer)
          :partial
        end

        # Bytes that a writable socket accepts for certain. A third of its buffer is then free, but Linux counts its own
        # overhead in it, which can be as much as the data.
        def sure_room(socket)
          @sure_room ||= (socket.getsockopt(:SOCKET, :SNDBUF).int / 8).clamp(1, TlsRoute::RECORD)
        end

        # Any other object accepts everything, or returns how much it accepted. It may wait, and may change or keep the
        # String that it gets.
        def write_whole(transfer)
          data = @copies ? unwritten : @buffer.byteslice(@written..)
          size = data.bytesize
          written = transfer.in_doubt do
            @copies ? transfer.out.write(data) : within(transfer) { transfer.out.write(data) || size }
          end
          written = size unless Integer === written && written <= size
          raise IOError, "out: write took none of #{size} bytes" unless written.positive?

          wrote(written, transfer)
          :partial
        end

        # Calls a foreign method, which may wait for any time.
        def within(transfer, &block)
          left = transfer.timeout && [transfer.time_left, 0].max
          Waiters.within(@waiter, left, &block) or raise transfer.timed_out
        end
      end
    end
  end
end
