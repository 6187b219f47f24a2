# frozen_string_literal: true

# The cursor of one call: which bytes are to be sent, how many have been sent, and when the next byte is due.
module Hyperion
  module Http
    module Sendfile
      # @api private
      class Transfer
        LOOKS_PER_TIMEOUT = 4.0
        # For Thread.handle_interrupt.
        NEVER = { Object => :never }.freeze
        # Seconds that count as no limit; some clocks cannot represent more. The same as in C.
        FOR_EVER = 9e9
        WAITS = %i[eagain want_read].freeze
        private_constant :LOOKS_PER_TIMEOUT, :FOR_EVER, :WAITS

        attr_reader :out, :file, :length, :head, :head_sent, :sent, :timeout, :idle
        # Whether the kernel may be asked to move the bytes by itself.
        attr_writer :native
        # Whether the length is the size of the file, and not a length that the caller gave.
        attr_writer :to_end
        # Whether it is unknown how much of the last write was accepted: see {#in_doubt}.
        attr_writer :in_doubt
        # The route: one of {Stats::ROUTES}; nil: not yet decided.
        attr_accessor :route
        # The state of {ReadAhead}: the offset in the file up to which all data is in the page cache, the time when that
        # was seen (0: never), and how many bytes to read in next (nil: the initial number).
        attr_accessor :resident_until, :looked_at, :read_in

        # @param length [Integer, nil] nil: up to the end of a source whose size is unknown
        # @param timeout [Numeric, nil] seconds without a byte
        # @param progress [Proc, nil] is called with the running total
        def initialize(out, file, offset, length, head, timeout, progress)
          begin_with(out, file, offset, length, head, timeout, progress)
        end

        def begin_with(out, file, offset, length, head, timeout, progress)
          @out = out
          @file = file
          @offset = offset
          @length = length
          @head = Transfer.own(head)
          @head_left = @head ? @head.bytesize : 0
          @head_sent = 0
          @sent = 0
          @timeout = Transfer.seconds(timeout)
          @progress = progress
          @idle = @patient = 0
          @io = @route = @queued = nil
          @in_doubt = @uninterrupted = @to_end = false
          @resident_until = offset
          @looked_at = 0
          @read_in = nil
          start
        end
        private :begin_with

        # Restarts the timeout: the next byte is due within it.
        def start
          @deadline = @timeout && (Transfer.now + @timeout)
        end

        # A copy, because the caller may change the head during the call, or may have given it singleton methods.
        def self.own(head)
          head.nil? || (head.frozen? && head.instance_of?(String)) ? head : String.new(head).freeze
        end

        # Converts the timeout to one of Ruby's own numbers; ActiveSupport::Duration only behaves like one.
        # @return [Numeric, nil] nil: for ever
        def self.seconds(timeout)
          timeout = timeout.to_f unless timeout.nil? || Numeric === timeout
          timeout && timeout > FOR_EVER ? nil : timeout
        end

        # Seconds on a clock that never jumps.
        def self.now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end

        # The IO to wait on: the destination, or the IO below a TLS connection; nil: there is none.
        def io
          @io ||=
            case @out
            when IO then writing_half
            when Integer then IO.for_fd(@out, autoclose: false)
            else @out.to_io if Sendfile.tls?(@out)
            end
        end

        # The same IO, unless it writes to another descriptor than it reads from (IO.popen).
        def writing_half
          number = Native.descriptor(@out)
          number == @out.fileno ? @out : IO.for_fd(number, "wb", autoclose: false)
        end
        private :writing_half

        # The offset in the file of the next unsent byte.
        def position
          @offset + @sent
        end

        # The next offset to read in the file, and below, the bytes still to be read: for {ReadAhead}.
        alias file_position position

        # {DataFrames::Framed} overrides these. Here the bytes sent are those of the region, and after an incomplete
        # region the connection is unusable.
        alias sent_of_region sent
        alias region_length length

        def torn?
          true
        end

        def frames; end

        # Bytes of the region still to be sent; nil: its end is not known.
        def remaining
          @length && (@length - @sent)
        end
        alias file_remaining remaining

        # The source, for routes that read it.
        def reader
          Sources.for(@file, position, remaining)
        end

        def head_left?
          @head_left.positive?
        end

        def complete?
          @sent == @length && @head_left.zero?
        end

        # Whether a byte of head or region was sent, or may have been.
        def begun?
          @sent.positive? || @head_sent.positive? || @in_doubt
        end

        # Ends the region at the end of the source, before its length, if the caller gave no length. The size of such a
        # file may be unknown, or more than can be read (sysfs reports 4,096 for every file).
        # @return [Boolean] false: the file was truncated
        def end_here
          return false unless @length.nil? || (@to_end && ReadAhead.regular_size(@file).to_i > position)

          @length = @sent
          true
        end

        # Whether a zero from sendfile may not be the end of the file. sendfile believes the reported size of the file;
        # for some files (FUSE, /proc) only a read finds the end.
        def end_in_doubt?
          size = @file && ReadAhead.regular_size(@file)
          size ? size.zero? || (@to_end && size > position) : false
        end

        def report?
          !@progress.nil?
        end

        def native?
          @native
        end

        # {Ktls::Transfer} overrides these.
        def ktls?
          false
        end

        def look_for_hangup; end

        def guarded(_waiter)
          yield
        end

        # The length of the next piece, at most limit bytes. If less than two pieces are left, they are halved, so that
        # the last one is not tiny: a short segment after a short segment waits for an acknowledgement.
        def next_chunk(limit)
          left = remaining
          return limit if left.nil?
          return left if left <= limit

          left < 2 * limit ? left / 2 : limit
        end

        # The bytes that a single attempt is to send: as many as possible, because each attempt ends by flushing a short
        # segment; but in an event loop none that must be read from a disk.
        def step_length
          known = @resident_until - position
          known.positive? ? [known, remaining].min : remaining
        end

        # Counts the bytes sent, of region and head, before anything else; the block is called next. Ruby can raise an
        # interrupt wherever a branch is taken or a Ruby method returns (for example Integer#positive?).
        def advance(bytes, head_bytes = 0)
          @head_sent += head_bytes
          @head_left -= head_bytes
          @sent += bytes
          tell if @progress && !@uninterrupted && bytes != 0
          return unless (bytes + head_bytes).positive?

          @idle = @patient = 0
          @queued = nil
          start
        end

        # Runs a write with interrupts deferred, so that none comes between the write and its count. The caller's block
        # is called afterwards, because the mask belongs to the thread and must not outlast a switch to another fiber.
        def uninterrupted(&write)
          before = @sent
          @uninterrupted = true
          Thread.handle_interrupt(NEVER, &write)
        ensure
          @uninterrupted = false
          tell if @progress && @sent > before
        end

        # Runs a write that does not say how much it accepted if it fails. The same holds if a TLS connection has begun
        # to send the ciphertext of a record, and must be given this record again.
        def in_doubt
          @in_doubt = true
          status = yield
          @in_doubt = WAITS.include?(status)
          status
        end

        # Whether a part of the last write may have been sent.
        def in_doubt?
          @in_doubt
        end

        # Runs a block that may wait for a disk. That time does not count against the peer's timeout.
        def apart_from_peer
          began = Transfer.now if @deadline
          yield
        ensure
          @deadline += Transfer.now - began if began
        end

        # Counts bytes sent of head and region, joined end to end.
        def advance_through_head(bytes)
          of_head = [bytes, @head_left].min
          advance(bytes - of_head, of_head)
        end

        # Seconds until the next byte is due; nil: no limit.
        def time_left
          @deadline && (@deadline - Transfer.now)
        end

        # Bytes that leave the kernel's queue count as progress, even if the destination does not yet poll writable. The
        # queue is checked when a wait begins, and several times within a timeout.
        def look_at_queue
          before = @queued
          @queued = Native.queued(io)
          start if before && before != @queued
        end

        # Seconds to wait before the next check of the queue; nil: no limit.
        def patience
          return unless @timeout

          look_at_queue unless @queued
          [time_left, @timeout / LOOKS_PER_TIMEOUT].min.clamp(0, nil)
        end

        # Counts that the destination was ready once more, without having accepted a byte since.
        def idle!
          @idle += 1
        end

        # The number of consecutive waits that ended without an event.
        attr_reader :patient

        def patient!
          @patient += 1
        end

        def timed_out
          TimeoutError.new(sent_of_region, region_length, @timeout, torn: torn?)
        end

        def truncated
          TruncatedError.new(sent_of_region, region_length, torn: torn?)
        end

        private

        def tell
          @progress.call(@sent)
        end
      end
    end
  end
end
