# frozen_string_literal: true

# Sends a region as HTTP/2 DATA frames: the call, the cursor, and the routes of the wire bytes.
module Hyperion
  module Http
    # DATA frames, for a server that speaks HTTP/2.
    module Sendfile
      # The SETTINGS_MAX_FRAME_SIZE that every peer accepts, in bytes (RFC 9113, 6.5.2).
      DATA_FRAME_SIZE = 16_384

      class << self
        # Sends a region as DATA frames, and returns when the kernel has accepted all of it. Every frame but the last is
        # full; the last has END_STREAM if `end_stream` is true, and no empty frame follows it. An empty region is one
        # empty frame with END_STREAM, or no frame without `end_stream`. Waits as {copy_to_socket} does.
        #
        # Flow control is the caller's duty: the region must fit into the windows of stream and connection, see
        # {data_frames_window}. The caller must also write nothing else to the connection during the call.
        #
        # You may leave the block with `break` or an exception: no frame is cut in two, and the connection stays usable.
        # Every exception that leaves the call after the first byte answers {Progress#torn?}. If false, RST_STREAM ends
        # this stream, and the others go on, unless they need a head that was not sent. If true, the connection must be
        # closed.
        #
        # @param out [IO, Integer, OpenSSL::SSL::SSLSocket, #write] the connection, as for {copy_to_socket}
        # @param source [IO, Integer, #to_io, String, IO::Buffer] a file, or memory, which is sent without a copy. An
        #   IO::Buffer (Ruby 3.2) is locked during the call; a slice of one is copied. A String must not change during
        #   the call.
        # @param offset [Integer] bytes from the start of the source
        # @param len [Integer] bytes of the region
        # @param stream_id [Integer] 1 to 2**31-1
        # @param max_frame_size [Integer] bytes, 16,384 to 2**24-1, but no more than the peer has announced
        # @param end_stream [Boolean] whether the last frame ends the stream
        # @param padding [Integer] zero bytes at the end of every frame, up to 255; 0: no frame is PADDED
        # @param head [String, nil] whole frames, for example HEADERS, that are sent before the region, in the same
        #   segment
        # @param timeout (see #copy_to_socket)
        # @yieldparam sent [Integer] bytes of the region sent so far, at frame boundaries
        # @return [Integer] len
        # @raise [TruncatedError] the source ends before the region
        # @raise [TimeoutError] no byte moved for the given time
        # @raise [SystemCallError, IOError, OpenSSL::SSL::SSLError] as from {copy_to_socket}; it also answers
        #   {Progress#bytes_sent} and {Progress#torn?}
        # @raise [ArgumentError, TypeError, RangeError] a bad argument; nothing was written
        # @see https://www.rfc-editor.org/rfc/rfc9113#section-6.1 RFC 9113, 6.1
        def copy_data_frames(out, source, offset, len, stream_id:, max_frame_size: DATA_FRAME_SIZE, end_stream: true,
                             padding: 0, head: nil, timeout: :io, &progress)
          transfer = DataFrames::Cursors.take(end_stream)
          small = progress.nil? && padding.eql?(0) &&
                  transfer.frames.set_small(source, offset, len, stream_id, max_frame_size, end_stream)
          moved = frames_at_once(transfer, out, source, len, head, timeout) if small
          unless moved == true
            unless moved
              kind = Arguments.check_frames(out, source, offset, len, head, timeout,
                                            stream_id:, max_frame_size:, padding:, end_stream:)
              memory = DataFrames.memory(source, offset, len)
              transfer = DataFrames::KtlsTransfer.new(end_stream) if kind == :ktls
              transfer.frames.set(memory, offset, len, stream_id, max_frame_size, padding, end_stream)
            end
            deliver_frames(transfer, kind, moved, out, source, offset, head, timeout, progress)
          end
          whole = true
          len
        rescue Exception => e
          raise Progress === e ? e : tell_of_attempt(e, transfer&.frames, moved, len)
        ensure
          DataFrames::Cursors.give_back(transfer, whole) if transfer
        end

        # How many bytes of the flow-control windows a region takes, including padding (RFC 9113, 6.9.1).
        #
        # @param len (see #copy_data_frames)
        # @param max_frame_size (see #copy_data_frames)
        # @param padding (see #copy_data_frames)
        # @param end_stream (see #copy_data_frames)
        # @return [Integer] bytes
        # @raise [ArgumentError, TypeError, RangeError] a bad argument
        def data_frames_window(len, max_frame_size: DATA_FRAME_SIZE, padding: 0, end_stream: true)
          Arguments.check_bytes("len", len)
          Arguments.check_frame(max_frame_size, padding)
          return len if padding.zero?

          payload = max_frame_size - 1 - padding
          frames = len.zero? && end_stream ? 1 : (len + payload - 1) / payload
          len + (frames * (1 + padding))
        end

        private

        # Sends a few frames of a file, the most frequent case for a server with many streams, in one call without an
        # object.
        #
        # @return [true, Array, nil] as {Native.frames_at_once}
        def frames_at_once(transfer, out, source, len, head, timeout)
          frames = transfer.frames
          sent = of_head = 0
          head_size = head.to_s.bytesize
          moved = Native.frames_at_once(frames, out, source, head, timeout) do |bytes, head_bytes|
            sent = bytes
            of_head = head_bytes
          end
          return moved unless moved == true

          Stats.response(:frames, len, transfer.ends_response, nil)
          take_turns(len)
          true
        rescue Errno::ESPIPE
          nil # not a file; the checks that follow say so
        rescue Exception => e
          raise tell_of_attempt(e, frames, moved, len) if moved

          raise tell_of_wire(e, frames, sent, of_head, head_size, len)
        end

        # For a call that fails in its first attempt: a signal handler may raise before anything else has counted the
        # bytes sent.
        # @param moved [true, Array, nil] as {Native.frames_at_once}; nil: no byte was sent
        def tell_of_attempt(error, frames, moved, len)
          return Progress.tell(error, moved ? len : 0, len, begun: moved, torn: false) if moved.nil? || moved == true

          bytes, head = moved
          head_size = head.to_s.bytesize
          of_head = [bytes, head_size].min
          tell_of_wire(error, frames, bytes - of_head, of_head, head_size, len)
        end

        def tell_of_wire(error, frames, sent, of_head, head_size, len)
          torn = !frames.boundary?(sent) || (of_head.positive? && of_head < head_size)
          Progress.tell(error, frames.region(sent), len, begun: sent + of_head != 0, torn: torn)
        end

        # @param moved [Array, nil] bytes of head and wire that have been sent, and the head
        def deliver_frames(transfer, kind, moved, out, source, offset, head, timeout, progress)
          moved, head = moved if moved
          timeout = own_timeout(out) if timeout == :io
          # Once bytes have come from a file, it is not checked again: another thread may have closed it.
          transfer.set(out, moved ? source : DataFrames.file(source), offset, head, timeout, progress)
          transfer.native = kind == :ktls || (EXTENSION && (IO === out || Integer === out))
          transfer.advance_through_head(moved) if moved
          run_frames(transfer, out) unless transfer.complete?
        end

        def run_frames(transfer, out)
          waiter = Waiters.current
          flush(out, transfer, waiter)
          transfer.guarded(waiter) { DataFrames.run(transfer, waiter) }
          whole = true
          take_turns(transfer.region_length)
        rescue Exception => e
          raise Progress.tell(e, transfer.sent_of_region, transfer.region_length,
                              begun: transfer.begun?, torn: transfer.torn?)
        ensure
          transfer.leave unless whole
          Stats.response(transfer.route, transfer.sent_of_region,
                         transfer.ends_response && (whole || transfer.complete?), e)
        end
      end

      # @api private
      module DataFrames
        # A frame of at least this many bytes is sent by a system call of its own. bench/frames.rb finds the limit.
        SENDFILE_FROM = 32 * 1024

        # The cursor over the wire bytes: it counts frame headers and padding as well as the region.
        module Framed
          attr_reader :frames, :region_length
          # Whether the response ends with these frames; for {Stats}.
          attr_accessor :ends_response

          # Has no region yet: see {set}.
          def initialize(ends_response)
            @frames = Native::Frames.new
            @ends_response = ends_response
          end

          # Sets the cursor to a region; the frames already know it.
          # @param file [IO, Integer, nil] nil: the region is in memory, and the frames know where
          # @param offset [Integer] where the region begins in its file
          def set(out, file, offset, head, timeout, progress)
            begin_with(out, file, 0, @frames.wire_length, head, timeout, progress)
            @region_offset = @resident_until = offset
            @region_length = @frames.region(@length)
          end

          # Releases the objects of the last region.
          def clear
            @out = @file = @head = @progress = @io = nil
          end

          def sent_of_region
            @frames.region(@sent)
          end

          def file_position
            @region_offset + sent_of_region
          end

          # All that is left: C code ends a step at a frame boundary.
          def step_length
            remaining
          end

          def file_remaining
            @region_length - sent_of_region
          end

          def reader
            Wire.new(@frames, @file)
          end

          # Whether the connection is in the middle of a frame, or may be.
          def torn?
            @in_doubt || (@head_sent.positive? && head_left?) || !@frames.boundary?(@sent)
          end

          # Called if the transfer ends early: the frames that were sent must not be held back until more follow.
          def leave
            Native.push(@out, true) if native? && !torn?
          rescue SystemCallError, IOError
            nil # the error that ended the transfer is already being raised
          end

          private

          def tell
            @progress.call(sent_of_region) unless torn?
          end
        end

        # To a plain descriptor, or to an object with its own `write`.
        class Transfer < Sendfile::Transfer
          include Framed
        end

        # To a connection that the kernel encrypts.
        class KtlsTransfer < Ktls::Transfer
          include Framed
        end

        # Unused cursors, kept so that a server with many streams allocates no object for each of its short regions.
        module Cursors
          KEY = :hyperion_sendfile_cursors
          SPARE = 16 # per thread: its fibers can be in that many calls at once
          private_constant :KEY, :SPARE

          def self.take(ends_response)
            spare = Thread.current.thread_variable_get(KEY)&.pop
            return Transfer.new(ends_response) unless spare

            spare.ends_response = ends_response
            spare
          end

          # A cursor is reused only after success; after a failure, other code may still use it.
          def self.give_back(transfer, whole)
            transfer.frames.release
            return if transfer.ktls? || !whole

            spare = Thread.current.thread_variable_get(KEY)
            Thread.current.thread_variable_set(KEY, spare = []) unless spare
            transfer.clear
            spare.push(transfer) if spare.size < SPARE
          end
        end

        # The wire bytes as a source, for routes that read: see {Sources}.
        class Wire
          def initialize(frames, file)
            @frames = frames
            @file = file
          end

          # Reads whole frames if they fit, and nothing if the file ends within the next frame.
          def read(length, wire, buffer)
            @frames.read(@file, wire, length, buffer)
          end
        end

        private_constant :Wire, :Framed, :SENDFILE_FROM

        module_function

        # @return [IO, Integer, nil] nil: the source is in memory
        def file(source)
          String === source || buffer?(source) ? nil : Sources.positioned(source)
        end

        # @return [String, IO::Buffer, nil] a String is frozen; nil: the source is a file
        def memory(source, offset, len)
          if String === source
            size = source.bytesize
            source = String.new(source).freeze unless source.frozen?
          elsif buffer?(source)
            size = source.size
          else
            return
          end
          raise TruncatedError.new(0, len, torn: false) if size < offset + len

          source
        end

        if Native::Frames.buffers?
          def buffer?(source)
            IO::Buffer === source
          end
        else
          def buffer?(_source)
            false
          end
        end

        def run(transfer, waiter)
          return UserspaceRoute.run(transfer, waiter) unless transfer.native?

          transfer.route = :frames
          return if transfer.frames.payload >= SENDFILE_FROM &&
                    Loop.run(transfer, waiter, NativeRoute.step(:sendfile, waiter), last: false)

          # The native route refuses a source without offsets, and one that cannot be read in an event loop.
          Loop.run(transfer, waiter, NativeRoute.step(:buffered, waiter)) || UserspaceRoute.run(transfer, waiter)
        end
      end

      private_constant :DataFrames
    end
  end
end
