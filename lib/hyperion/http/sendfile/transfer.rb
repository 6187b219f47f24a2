# frozen_string_literal: true

# The cursor of one call: what is to go out, what has gone, and by when the next byte is due.
module Hyperion
  module Http
    module Sendfile
      # @api private
      class Transfer
        LOOKS_PER_TIMEOUT = 4.0
        # For Thread.handle_interrupt.
        NEVER = { Object => :never }.freeze
        # Seconds that are as good as no limit, and more than some clocks take. As in C.
        FOR_EVER = 9e9
        WAITS = %i[eagain want_read].freeze
        private_constant :LOOKS_PER_TIMEOUT, :FOR_EVER, :WAITS

        attr_reader :out, :file, :length, :head, :head_sent, :sent, :timeout, :idle
        # Whether the kernel may be asked to move the bytes by itself.
        attr_writer :native
        # Whether the length is what the file said of its size, and not what the caller wants.
        attr_writer :to_end
        # Whether nobody knows how much was taken of what was given last: see {#in_doubt}.
        attr_writer :in_doubt
        # By which way it goes: one of {Stats::ROUTES}; nil before that is decided.
        attr_accessor :route
        # What {ReadAhead} knows: up to where in the file the page cache has all of it, when that was seen (0: never
        # yet), and how many bytes are to be read in at a time (nil: as many as at first).
        attr_accessor :resident_until, :looked_at, :read_in

        # @param length [Integer, nil] nil: to the end of a source whose size can't be asked
        # @param timeout [Numeric, nil] seconds without a byte
        # @param progress [Proc, nil] gets the running total
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

        # From now on the next byte is due within the timeout.
        def start
          @deadline = @timeout && (Transfer.now + @timeout)
        end

        # The caller may reuse a head meanwhile, and have methods of its own on it.
        def self.own(head)
          head.nil? || (head.frozen? && head.instance_of?(String)) ? head : String.new(head).freeze
        end

        # As a number of Ruby's own, which not everything is that passes for one (ActiveSupport::Duration).
        # @return [Numeric, nil] nil: for ever
        def self.seconds(timeout)
          timeout = timeout.to_f unless timeout.nil? || Numeric === timeout
          timeout && timeout > FOR_EVER ? nil : timeout
        end

        # Seconds on a clock that never jumps.
        def self.now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end

        # What to wait on: the destination, or the IO below a TLS connection; nil for what has none.
        def io
          @io ||=
            case @out
            when IO then writing_half
            when Integer then IO.for_fd(@out, autoclose: false)
            else @out.to_io if Sendfile.tls?(@out)
            end
        end

        # The same IO, but for one that writes by another descriptor than it reads by (IO.popen).
        def writing_half
          number = Native.descriptor(@out)
          number == @out.fileno ? @out : IO.for_fd(number, "wb", autoclose: false)
        end
        private :writing_half

        # Where in the file the next unsent byte is.
        def position
          @offset + @sent
        end

        # Where in the file that is, and how much of it is still to be read: for who reads ahead.
        alias file_position position

        # What {DataFrames::Framed} has otherwise: what is counted is the region, and one that is not whole
        # leaves a connection of no use.
        alias sent_of_region sent
        alias region_length length

        def torn?
          true
        end

        def frames; end

        # Bytes of the region still to go; nil where its end is not known.
        def remaining
          @length && (@length - @sent)
        end
        alias file_remaining remaining

        # Reads what is to be written, for a route that does.
        def reader
          Sources.for(@file, position, remaining)
        end

        def head_left?
          @head_left.positive?
        end

        def complete?
          @sent == @length && @head_left.zero?
        end

        # Whether a byte of head or region is out, or may be.
        def begun?
          @sent.positive? || @head_sent.positive? || @in_doubt
        end

        # Ends the region where the source does, before its length, if that was no promise: the caller named none,
        # and the size of the file is not known, or more than can be read (4,096 for every file of sysfs).
        # @return [Boolean] false: the file was truncated
        def end_here
          return false unless @length.nil? || (@to_end && ReadAhead.regular_size(@file).to_i > position)

          @length = @sent
          true
        end

        # Whether a zero from sendfile need not be the end of the file: it goes by the size that the file says it has,
        # and for some (FUSE, /proc) only a read knows.
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

        # What {Ktls::Transfer} does otherwise.
        def ktls?
          false
        end

        def look_for_hangup; end

        def guarded(_waiter)
          yield
        end

        # The next piece, at most limit bytes. What is left, up to twice that, is halved, so that the
        # last piece is no crumb: a short segment after a short segment waits for an acknowledgement.
        def next_chunk(limit)
          left = remaining
          return limit if left.nil?
          return left if left <= limit

          left < 2 * limit ? left / 2 : limit
        end

        # What a single attempt is asked to send: as much as can be, since at the end of what it was asked for it
        # lets go of a short segment; but in an event loop nothing that has to be read from a disk.
        def step_length
          known = @resident_until - position
          known.positive? ? [known, remaining].min : remaining
        end

        # Counts what went out, of the region and of the head. First of all, and tells of it next: Ruby lets
        # interrupts in where a branch is taken or a method of Ruby returns (Integer#positive? is one).
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

        # Runs a write that lets interrupts in, so that none comes between the write and its count. The
        # caller's block hears of it afterwards: the mask is the thread's, and must not outlast a switch to
        # another fiber.
        def uninterrupted(&write)
          before = @sent
          @uninterrupted = true
          Thread.handle_interrupt(NEVER, &write)
        ensure
          @uninterrupted = false
          tell if @progress && @sent > before
        end

        # Runs a write of which nobody knows how much it took when it fails; nor when a TLS connection is to
        # be given a record again, of which it has begun to send the ciphertext.
        def in_doubt
          @in_doubt = true
          status = yield
          @in_doubt = WAITS.include?(status)
          status
        end

        # Whether a part of what was last given may be out.
        def in_doubt?
          @in_doubt
        end

        # Runs what may wait for a disk. That time is not the peer's.
        def apart_from_peer
          began = Transfer.now if @deadline
          yield
        ensure
          @deadline += Transfer.now - began if began
        end

        # Counts what went out of head and region laid end to end.
        def advance_through_head(bytes)
          of_head = [bytes, @head_left].min
          advance(bytes - of_head, of_head)
        end

        # Seconds until the next byte is due, nil for no limit.
        def time_left
          @deadline && (@deadline - Transfer.now)
        end

        # Bytes that leave the kernel count as progress, though the destination does not poll writable for
        # them yet. Looked at several times within a timeout, as a wait begins and while it lasts.
        def look_at_queue
          before = @queued
          @queued = Native.queued(io)
          start if before && before != @queued
        end

        # How long to wait before the next look, in seconds; nil for no limit.
        def patience
          return unless @timeout

          look_at_queue unless @queued
          [time_left, @timeout / LOOKS_PER_TIMEOUT].min.clamp(0, nil)
        end

        # One more time the destination was ready, and we have yet to see it take something.
        def idle!
          @idle += 1
        end

        # How many waits in a row have ended without an event.
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
