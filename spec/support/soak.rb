# frozen_string_literal: true

require_relative "faults"

# Random transfers, several at once, and what befalls connections in real life: peers that stall, hang up or reset,
# files that shrink, threads that are killed, timeouts, and sockets that others close. Whatever is said afterwards is
# held against what arrived. All of a round comes from its seed, but for when things happen.
module Soak
  LIMIT = 20 # seconds, for one transfer
  FILE = 1_000_003 # bytes that all transfers are regions of
  FATES = %i[none none none none kill timeout close reset hang_up stall shrink].freeze
  # A thread that is killed leaves its fibers unfinished, which Ruby 3.1 does not forgive.
  FOR_THREADS = %i[kill timeout].freeze
  # A number that somebody closes is nobody's any more; a pipe has no reset.
  NOT_TO = { fd: %i[close], pipe: %i[reset] }.freeze
  # Async does not tell a fiber within IO#write, a wrapper's own way to wait, that another thread has closed the IO.
  NOT_IN_ASYNC = { wrapper: %i[close] }.freeze

  class Broken < StandardError; end

  # What is to be sent, by which way, and what befalls it.
  class Course
    attr_reader :way, :waiter, :size, :offset, :head, :fate, :after, :reader, :small, :buffer

    def initialize(random)
      @random = random
      @way = pick(Faults::Plan::WAYS)
      @waiter = pick(Waiters::ALL)
      @size = Math.exp(random.rand * Math.log(way.sizes.max)).ceil.clamp(way.sizes.min, way.sizes.max)
      @offset = way.source == :stringio ? 0 : random.rand(FILE - size)
      @head = pick([nil, 1, 150, 5_000, 40_000])&.then { |length| random.bytes(length) }
      @small = random.rand(3).zero?
      @buffer = random.rand(2_000..200_000)
      @reader = pick(%i[greedy greedy slow])
      choose_fate
    end

    def to_s
      "#{way.name} to #{way.kind} by #{waiter}, #{size} bytes at #{offset}, head #{head&.bytesize.inspect}, reader " \
        "#{reader}#{" (small buffers)" if small}; #{fate} after #{after}"
    end

    def expected
      @expected ||= head.to_s.b + Payload.bytes(FILE).byteslice(offset, size)
    end

    private

    def pick(list)
      list[@random.rand(list.size)]
    end

    def choose_fate
      @fate = pick(FATES)
      @fate = :none if waiter.to_s.include?("fiber") && FOR_THREADS.include?(fate)
      @fate = :none if NOT_TO.fetch(way.kind, []).include?(fate) || (fate == :shrink && way.source == :stringio)
      @fate = :none if waiter == :fiber_async && NOT_IN_ASYNC.fetch(way.kind, []).include?(fate)
      @reader = :stalled if fate == :stall
      @after = @random.rand(size)
    end
  end

  # A course under way.
  class Run
    include Payload
    include Channels
    include Waiters

    def initialize(course, file)
      @course = course
      @file = file
      @totals = []
    end

    def start
      @channel = channel(@course.way.kind, small: @course.small, nonblock: @course.way.source != :blocking)
      @channel.wire.setsockopt(:SOCKET, :SNDBUF, @course.buffer) if BasicSocket === @channel.wire && !@course.small
      @reader = @channel.read(@course.reader)
      @sender = start_under(@course.waiter) { send_region }
      @fate = Thread.new { befall unless @course.fate == :none }
      self
    end

    # Raises Broken.
    def judge
      @fate.value
      end_of_sender
      @reader.go if @course.reader == :stalled
      @channel.finish
      @received = @channel.decode(@reader.result(within: LIMIT))
      @said ? judge_success : judge_failure
    rescue Eventually::NeverHappened => e
      broken(e.message)
    end

    private

    def send_region
      name = @course.waiter.start_with?("blocking") ? :copy_to_socket_blocking : :copy_to_socket
      options = { head: @course.head, timeout: (0.2 if @course.fate == :stall) }
      send = lambda do
        S.public_send(name, @channel.out, source, @course.offset, @course.size, **options) { |total| @totals << total }
      end
      @course.fate == :timeout ? Timeout.timeout(0.001 + (@course.after % 50 / 1000.0)) { send.call } : send.call
    end

    def source
      return StringIO.new(payload(FILE).byteslice(0, @course.size)) if @course.way.source == :stringio
      return @file unless @course.fate == :shrink

      @shrinking = Cleanup.close(Tempfile.create("soak")).tap do |file|
        File.delete(file)
        file.binmode
        file.write(payload(FILE))
        file.flush
      end
    end

    # When so many bytes are through, or nothing more will be.
    def befall
      Eventually.until("its time", within: LIMIT, every: 0.0005) { @reader.bytes >= @course.after || @sender.done? } if
        @course.reader != :stalled
      case @course.fate
      when :kill then @sender.thread.kill
      when :close then @channel.finish
      when :reset then @reader.reset
      when :hang_up then @reader.close
      when :shrink then @shrinking&.truncate(@course.offset + @course.after)
      end
    rescue IOError, SystemCallError, OpenSSL::SSL::SSLError
      nil # it was over already
    end

    def end_of_sender
      @said = @sender.value(within: LIMIT)
    rescue Eventually::NeverHappened
      raise
    rescue StandardError => e
      @error = e
    end

    def judge_success
      broken("returned #{@said}") unless @said == @course.size
      broken("the block was told #{@totals.last}") unless @totals.last == @course.size
      return broken("wrong bytes: #{difference}") unless prefix?

      cut = %i[reset hang_up].include?(@course.fate) || @course.fate == :shrink
      broken("only #{@received.bytesize} bytes") unless cut || @received.bytesize == @course.expected.bytesize
    end

    def judge_failure
      broken("for no reason: #{@error.full_message(highlight: false)}") unless explained?
      broken("wrong bytes: #{difference}") unless prefix?
      told = FOR_THREADS.include?(@course.fate) || @error.respond_to?(:bytes_sent)
      broken("#{@error.class} does not say how far it got") unless told
      judge_counts(@error.respond_to?(:bytes_sent) ? @error.bytes_sent : @totals.last.to_i)
    end

    # What was said to be sent is what arrived, as far as the reader was there to the end.
    def judge_counts(sent)
      broken("told #{sent}, and the block #{@totals.last}") unless @totals.last.to_i == sent
      counted = sent.zero? ? 0 : @course.head.to_s.bytesize + sent
      case @course.fate
      when :reset, :hang_up then right = @received.bytesize <= [counted, @course.head.to_s.bytesize].max || !exact?
      else
        right = sent.zero? ? @received.bytesize <= @course.head.to_s.bytesize : @received.bytesize == counted
        right ||= !exact? && (@received.bytesize >= counted || cut_record?)
      end
      broken("#{@error.inspect} after #{sent} bytes, and #{@received.bytesize} arrived (#{counted})") unless right
    end

    def exact?
      Channels::KERNEL.include?(@course.way.kind) || @course.way.kind == :fd
    end

    # Closed elsewhere, a TLS connection need not deliver what OpenSSL has taken.
    def cut_record?
      Channels::TLS.include?(@course.way.kind) && @course.fate == :close
    end

    def explained?
      case @course.fate
      when :kill then @error.nil?
      when :timeout then @error.is_a?(Timeout::Error)
      when :stall then @error.is_a?(S::TimeoutError)
      when :shrink then @error.is_a?(S::TruncatedError)
      when :close, :reset, :hang_up
        [IOError, SystemCallError, OpenSSL::SSL::SSLError].any? { |error| @error.is_a?(error) } &&
          !@error.is_a?(S::TruncatedError)
      end
    end

    # Of a page that is cut, the kernel clears the rest, on its way to the peer too.
    def prefix?
      sure = @course.fate == :shrink ? @course.head.to_s.bytesize + @course.after : @course.expected.bytesize
      @received.bytesize <= @course.expected.bytesize &&
        @course.expected.byteslice(0, sure).start_with?(@received.byteslice(0, sure))
    end

    def difference
      Payload::Difference.new(@received, @course.expected.byteslice(0, @received.bytesize))
    end

    def broken(what)
      raise Broken, "#{@course}\n#{what}"
    end
  end

  class << self
    # One round: up to four transfers from the same File at once, the last of them possibly under splice.
    def round(seed)
      random = Random.new(seed)
      ENV["HYPERION_HTTP_SPLICE"] = random.rand(3).zero? ? "1" : nil
      S.keep_gvl = random.rand(4).zero?
      before = descriptors
      file = Cleanup.close(File.open(Payload.path(FILE), "rb"))
      courses = Array.new(random.rand(1..4)) { Course.new(random) }
      courses.map { |course| Run.new(course, file).start }.each(&:judge)
      Cleanup.run
      # Not after a garbage collection: it may be long until the next.
      raise Broken, "#{courses.join("\n")}\nleft #{descriptors - before} descriptors open" if descriptors > before
    ensure
      Cleanup.run
    end

    # Rounds from the seed on for so many seconds, or the one round of that seed. What is broken is told with its seed.
    # @return [Boolean] nothing was broken
    def run(seconds:, seed: Random.rand(1 << 31), rounds: nil)
      Payload.path(FILE)
      puts "soak: from seed #{seed}"
      workers = rounds ? 1 : 2
      counts = Array.new(workers) { |index| work(seed + (index * 1_000_000), seconds, rounds) }.map(&:value)
      puts "#{counts.sum(&:first)} rounds, #{counts.sum(&:last)} broken"
      counts.sum(&:last).zero?
    end

    private

    def descriptors
      Dir.children("/proc/self/fd").size
    end

    # A process of its own; a thread for its answer.
    def work(seed, seconds, rounds)
      Thread.new { Faults.in_child(limit: seconds + (2 * LIMIT)) { keep_on(seed, seconds, rounds) } }
    end

    def keep_on(seed, seconds, rounds)
      %i[tcp tls12 tls13].each { |kind| Channels.open(kind) } # whatever is made once, and stays
      Cleanup.run
      deadline = Eventually.now + seconds
      done = broken = 0
      while rounds ? done < rounds : Eventually.now < deadline
        broken += 1 unless carry_out(seed + done)
        done += 1
      end
      [done, broken]
    end

    def carry_out(seed)
      round(seed)
      true
    rescue StandardError => e
      at = "\n#{Array(e.backtrace).first(6).join("\n")}" unless e.is_a?(Broken)
      puts "\nseed #{seed}: #{e.message}#{at}\n  again: rake \"soak[#{seed}]\""
      false
    end
  end
end
