# frozen_string_literal: true

# One plan carried out, and judged: every byte once and in order, or the right error and how far it got; nothing left
# behind, nothing done in vain.
module Faults
  class Trial
    include Payload
    include Channels
    include Waiters

    class Broken < StandardError; end

    FILE = 1_000_003 # bytes that all transfers are regions of
    LIMIT = 8 # seconds, for what has no timeout of its own
    LATE = 3 # seconds after its timeout
    # Seconds. User-mode-linux takes time that other processes of its host have used for the guest's own.
    CPU = File.read("/proc/cpuinfo").include?("User Mode Linux") ? 10.0 : 2.0
    STREAM = 9 # of DATA frames
    TRUNCATING = %i[sendfile fill pread].freeze

    # How often a fault befell a call.
    attr_reader :fired, :outcome

    def initialize(plan, control)
      @plan = plan
      @control = control
    end

    # Whatever is made once in a process and stays.
    def self.warm_up(control)
      control.disarm
      Payload.path(FILE)
      Plan::WAYS.map(&:kind).uniq.each { |kind| Channels.open(kind) }
      Cleanup.run
    end

    # Raises Broken, or returns itself.
    def run
      before = descriptors
      ENV["HYPERION_HTTP_SPLICE"] = @plan.way.splice || @plan.waiter == :own_pipe ? "1" : nil
      S.keep_gvl = @plan.keep_gvl
      carry_out
      judge
      Cleanup.run
      # Not after a garbage collection: it may be long until the next. A thread that reads ahead may be late.
      Eventually.until("no more than #{before} descriptors to be open", within: 3) { descriptors <= before }
      self
    rescue Eventually::NeverHappened => e
      broken(e.message)
    ensure
      @control.disarm
      Cleanup.run
    end

    private

    def descriptors
      Dir.children("/proc/self/fd").count { |number| !report?("/proc/self/fd/#{number}") }
    end

    # A sanitizer opens its report at its first word, whenever that is.
    def report?(link)
      File.readlink(link).match?(%r{/report\.\d+\z})
    rescue Errno::ENOENT
      true # the folder's own
    end

    def carry_out
      @channel = channel(@plan.way.kind, small: @plan.small_buffers, nonblock: @plan.nonblock?)
      broken("this kernel does not encrypt") if @plan.kernel_tls? && S.fast_path_kind(@channel.out) != :ktls
      reader = @reader = @channel.read(@plan.reader)
      @totals = []
      @seconds, @cpu = took { send_region }
      reader.go if @plan.reader == :stalled
      follow_up if @said && @plan.follow_up
      @channel.finish
      @received = @channel.decode(reader.result(within: LIMIT))
    end

    def took
      clocks = [Process::CLOCK_MONOTONIC, Process::CLOCK_PROCESS_CPUTIME_ID]
      before = clocks.map { |clock| Process.clock_gettime(clock) }
      yield
      clocks.zip(before).map { |clock, time| Process.clock_gettime(clock) - time }
    end

    def send_region
      source = source()
      pipes = @plan.own_loop == :copy_splice_into_pipe ? IO.pipe : []
      sender = start_under(@plan.waiter) do
        @control.arm(@plan.rules, *[@channel.wire, source].grep(IO))
        @plan.own_loop ? own_loop(source, pipes) : facade(source)
      ensure
        @control.hold
      end
      setback = Thread.new { interfere(sender) } if @plan.setback
      @said = sender.value(within: LIMIT)
    rescue Eventually::NeverHappened => e
      broken(e.message)
    rescue SystemCallError, IOError, OpenSSL::SSL::SSLError => e
      @error = e
    ensure
      setback&.join
      @control.hold
    end

    # By a Control of its own, whose file has a place of its own.
    def interfere(sender)
      control = Control.new(@control.path)
      Eventually.until("its time", within: LIMIT, every: 0.0002) { control.calls >= @plan.setback_at || sender.done? }
      case @plan.setback
      when :kill then sender.thread.kill
      when :close then @channel.finish
      when :reset then @reader.reset
      end
    rescue IOError, SystemCallError
      nil # it was over already
    ensure
      control.close
    end

    # The ways of the library do not know the loops.
    def start_under(waiter, &block)
      super(@plan.own_loop ? :thread : waiter, &block)
    end

    def source
      return StringIO.new(payload(FILE).byteslice(0, @plan.size + 10)) if @plan.way.source == :stringio
      return payload(FILE) if @plan.way.source == :string

      payload_file(FILE)
    end

    def facade(source)
      return frames(source) if @plan.way.frames

      name = @plan.waiter.start_with?("blocking") ? :copy_to_socket_blocking : :copy_to_socket
      progress = ->(sent) { @totals << sent } if @plan.report
      S.public_send(name, @channel.out, source, @plan.offset, @plan.size, head: @plan.head, timeout: @plan.timeout,
                    &progress)
    end

    def frames(source)
      progress = ->(sent) { @totals << sent } if @plan.report
      options = { stream_id: STREAM, max_frame_size: @plan.way.frames, head: @plan.head, timeout: @plan.timeout }
      S.copy_data_frames(@channel.out, source, @plan.offset, @plan.size, **options, &progress)
    end

    # What somebody writes who brings a loop of their own, by the statuses alone.
    def own_loop(source, pipes)
      sent = 0
      primitive = @plan.own_loop
      until sent == @plan.size
        bytes, status = S.public_send(primitive, @channel.out, source, @plan.offset + sent, @plan.size - sent, *pipes)
        sent += bytes
        fruitless = bytes.zero? ? fruitless.to_i + 1 : 0
        # copy_small says no more than that it came up short.
        status ||= { @plan.size => :done }.fetch(sent) { fruitless > 20 ? :eof : :eagain }
        check_status(primitive, bytes, status, sent)
        case status
        when :eagain then @channel.wire.wait_writable(0.05)
        when :eof then raise S::TruncatedError.new(sent, @plan.size)
        when :unsupported
          primitive = @plan.size - sent > S.small_file_threshold ? :copy : :copy_small
          primitive = :copy_small if @fell_back
          @fell_back = true
          pipes.each(&:close).clear
          return hand_over(source, sent) if primitive == :copy_small && @plan.size - sent > S.small_file_threshold
        end
      end
      sent
    rescue SystemCallError => e
      S::Progress.tell(e, sent, @plan.size) unless e.respond_to?(:bytes_sent)
      raise
    ensure
      pipes.each(&:close)
    end

    # The rest to the façade.
    def hand_over(source, sent)
      sent + S.copy_to_socket(@channel.out, source, @plan.offset + sent, @plan.size - sent)
    rescue SystemCallError, IOError => e
      raise S::Progress.tell(e, sent + e.bytes_sent, @plan.size)
    end

    def check_status(primitive, bytes, status, sent)
      right =
        case status
        when :done then sent == @plan.size
        when :partial then bytes.positive? && sent < @plan.size
        when :eagain then primitive == :copy_small || bytes.zero?
        when :unsupported then bytes.zero?
        when :eof then true
        end
      broken("#{primitive} said #{[bytes, status]}") unless right
    end

    # The connection is still good for the next response.
    def follow_up
      @more = payload(FILE).byteslice(300_001, @plan.follow_up)
      S.copy_to_socket(@channel.out, payload_file(FILE), 300_001, @plan.follow_up, timeout: LIMIT)
    end

    def expected
      @expected ||= @plan.head.to_s.b + region + @more.to_s
    end

    def region
      content = payload(FILE).byteslice(@plan.offset, @plan.size)
      return content unless @plan.way.frames

      Http2Frames.expected(content, stream_id: STREAM, max_frame_size: @plan.way.frames)
    end

    def judge
      @fired = @control.fired
      @said ? judge_success : judge_error
      judge_totals if @plan.report
      judge_effort
      @outcome = @error&.class || (@said ? :sent : :killed)
    end

    def judge_success
      broken("returned #{@said.inspect}") unless @said == @plan.size
      cut = @plan.setback == :reset && expected.start_with?(@received)
      broken("wrong bytes: #{difference(expected)}") unless @received == expected || cut
      broken("no timeout") if @plan.style == :stalled && @plan.size > 600_000
    end

    def difference(right)
      Payload::Difference.new(@received, right)
    end

    def judge_error
      broken("for no reason: #{describe(@error)}") unless explained?
      return judge_prefix(@totals.last.to_i) if @error.nil?

      broken("#{@error.class} does not say how far it got") unless @error.respond_to?(:bytes_sent)
      sent = @error.bytes_sent
      # A close may come when all is out and nothing is said yet, and so may what ends the wait for the last records.
      most = @plan.setback == :close || !exact? ? @plan.size : @plan.size - 1
      broken("bytes_sent is #{sent}") unless sent.between?(0, most)
      broken("bytes_expected is #{@error.bytes_expected}") unless @error.bytes_expected == @plan.size
      judge_prefix(sent)
    end

    def judge_prefix(sent)
      counted = sent.zero? ? 0 : @plan.head.to_s.bytesize + sent
      unless expected.start_with?(@received)
        broken("#{@error.class} after wrong bytes: #{difference(expected.byteslice(0, @received.bytesize))}")
      end
      return judge_frames(sent) if @plan.way.frames

      right = sent.zero? ? @received.bytesize <= @plan.head.to_s.bytesize : @received.bytesize == counted
      # Of a record, or of what somebody's own write was given, a part may be out and not counted.
      right ||= !exact? && @received.bytesize >= counted
      # At a close the kernel drops the records that are still with it.
      right ||= @plan.kernel_tls? && @received.bytesize <= counted
      right ||= @plan.setback == :reset && @received.bytesize <= counted
      broken("#{@error.class} after #{sent}, but #{@received.bytesize} received (counted #{counted})") unless right
    end

    # The region's bytes among those received, and whether these end where a frame does.
    def judge_frames(sent)
      frames, rest = Http2Frames.parse(@received.byteslice(@plan.head.to_s.bytesize..).to_s)
      received = frames.sum { |frame| frame.data.bytesize } + [rest.bytesize - 9, 0].max
      torn = !rest.empty? || @received.bytesize.between?(1, @plan.head.to_s.bytesize - 1)
      cut = @plan.setback == :reset && received <= sent
      # Of a killed transfer the block has been told no more than whole frames.
      right = exact? && @error ? received == sent : received >= sent
      broken("#{@error.class} after #{sent}, but #{received} received") unless right || cut
      return if @error.nil? || cut || @error.torn? == torn || (!exact? && @error.torn?)

      broken("#{@error.class} says torn? #{@error.torn?}, and #{rest.bytesize} bytes of a frame were received")
    end

    def exact?
      Channels::KERNEL.include?(@plan.way.kind) || @plan.way.kind == :fd
    end

    def explained?
      case @plan.setback
      when :kill then return true if @error.nil?
      when :close then return true if @error.is_a?(IOError) && !@error.is_a?(S::TruncatedError)
      when :reset then return true if [Errno::EPIPE, Errno::ECONNRESET].any? { |error| @error.is_a?(error) }
      end
      case @error
      when S::TimeoutError then @plan.limited?
      when S::TruncatedError then hard.any? { |call, fault| fault == :zero && TRUNCATING.include?(call) }
      when SystemCallError
        (@plan.style == :stuck && @error.is_a?(Errno::EINTR) && @fired[:pread].positive?) ||
          hard.any? { |call, fault| fault.is_a?(Class) ? @error.is_a?(fault) : call == :drain && @error.is_a?(Errno::EIO) }
      when OpenSSL::SSL::SSLError then hard.any? { |call, _| call == :write }
      end
    end

    # The faults that fired and that nobody has to get over.
    def hard
      @hard ||= @control.journal.reject { |entry| entry.action == :pass }.uniq.filter_map do |entry|
        fault = entry.action == :fail ? errno(-entry.result) : entry.action
        # To Ruby, which makes an IO of a number, this question is none that may fail.
        asked_by_ruby = entry.call == :getfl && @plan.way.kind == :fd
        [entry.call, fault] if asked_by_ruby || Plan::MENU[entry.call][:hard].include?(fault)
      end
    end

    def errno(number)
      Errno.constants.map { |name| Errno.const_get(name) }.find { |error| number == error::Errno }
    end

    def judge_totals
      right = @totals == @totals.sort.uniq && @totals.all? { |total| total.between?(1, @plan.size) } &&
              (@totals.last || 0) == (@said || told_last)
      broken("the block was told #{@totals.last(5)} of #{@totals.size}") unless right
    end

    # Of frames the block is told when they are whole, and all it is told then is out.
    def told_last
      sent = @error&.bytes_sent || @totals.last.to_i
      @plan.way.frames ? [@totals.last.to_i, sent].min : sent
    end

    # Neither spinning nor waiting beyond the limit.
    def judge_effort
      broken("took #{@seconds.round(2)} s") if @plan.limited? && @seconds > @plan.timeout + LATE
      broken("took #{@cpu.round(2)} s of CPU") if @cpu > CPU
      most = 500 + (3 * @fired.values.sum) + (@plan.size / 64)
      broken("made #{@control.calls} system calls") if @control.calls > most
    end

    def describe(error)
      return "killed" if error.nil?

      "#{error.class}: #{error.message} (#{error.respond_to?(:bytes_sent) ? error.bytes_sent : "no"} bytes sent)\n" \
        "#{Array(error.backtrace).first(6).join("\n")}"
    end

    def broken(what)
      raise Broken, "#{what}\nsuffered #{suffered.first(12).join(", ")}#{" ..." if suffered.size > 12}"
    end

    def suffered
      @suffered ||= @control.journal.each_with_index.filter_map do |entry, index|
        "#{index}: #{entry.call} #{entry.action} #{entry.result}" unless entry.action == :pass
      end
    end
  end
end
