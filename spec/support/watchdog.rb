# frozen_string_literal: true

# Turns a hang into a failure: an example over the limit (its metadata may set one of its own) is ended with the
# backtraces of all threads. Should even that be impossible (native code that keeps the GVL), a process beside the suite
# aborts it.
class Watchdog
  class Expired < Exception; end # rubocop:disable Lint/InheritException -- nothing in between may rescue it

  GRACE = 10

  def self.install(config, limit:)
    watchdog = new(limit)
    config.before(:suite) { watchdog.start }
    config.around { |example| watchdog.guard(example) }
  end

  def initialize(limit)
    @limit = limit
    @mutex = Mutex.new
    @changed = ConditionVariable.new
  end

  def start
    start_guardian if Process.respond_to?(:fork)
    Thread.new { watch }.name = "watchdog"
  end

  def guard(example)
    main = Thread.current
    begin_example(main, example, example.metadata.fetch(:limit, @limit))
    example.run
  rescue Expired => e
    example.example.set_exception(e)
  ensure
    end_example
  end

  private

  def begin_example(thread, example, limit)
    @mutex.synchronize do
      @thread = thread
      @what = "#{example.location} ran for over #{limit} s"
      @deadline = Eventually.now + limit
      @changed.signal
    end
    @beat&.write("#{limit} #{example.location}\n")
  end

  def end_example
    @mutex.synchronize { @deadline = nil }
    @beat&.write("\n")
  end

  def watch
    @mutex.synchronize do
      loop do
        @changed.wait(@mutex, @deadline && [@deadline - Eventually.now, 0].max)
        next unless @deadline && Eventually.now >= @deadline

        @deadline = nil
        @thread.raise(Expired, "#{@what}\n#{backtraces}")
      end
    end
  end

  def backtraces
    Thread.list.reject { |thread| thread == Thread.current }.map do |thread|
      "#{thread.inspect}\n  #{Array(thread.backtrace).first(15).join("\n  ")}"
    end.join("\n")
  end

  # An example tells its limit and place through a pipe when it begins, and an empty line when it ends: silence in
  # between means that Ruby is stuck.
  def start_guardian
    beats, @beat = IO.pipe
    suite = Process.pid
    guardian = fork do
      @beat.close
      stand_guard(beats, suite)
    ensure
      exit!(true)
    end
    Process.detach(guardian)
    beats.close
  end

  def stand_guard(beats, suite)
    running = ""
    while beats.wait_readable(running.empty? ? nil : running.to_i + GRACE)
      running = beats.readpartial(4096).lines.last.chomp
    end
    warn "#{running}: Ruby is stuck in native code; the suite is aborted."
    Process.kill(:ABRT, suite)
  rescue EOFError
    nil # the suite has ended
  end
end
