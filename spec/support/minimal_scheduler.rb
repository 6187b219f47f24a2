# frozen_string_literal: true

# The smallest Fiber scheduler that is correct: IO.select over what fibers wait for, and a clock.
# It keeps every io_wait call, so that a spec can see who waited, for what and for how long.
class MinimalScheduler
  Wait = Struct.new(:io, :events, :timeout)

  attr_reader :waits

  def initialize
    @waits = []
    @waiting = {} # Fiber => Wait
    @timers = {} # Fiber => the time at which it resumes, whatever it waits for
    @parked = {} # all of them: of one that waits for a Queue Ruby keeps nothing that the collector would see
    @runnable = []
    @mutex = Mutex.new
    @wake_r, @wake_w = IO.pipe
  end

  def io_wait(io, events, timeout)
    wait = Wait.new(io, events, timeout)
    @waits << wait
    @waiting[Fiber.current] = wait
    park(timeout)
  ensure
    @waiting.delete(Fiber.current)
  end

  def kernel_sleep(duration = nil)
    park(duration)
    true
  end

  def block(_blocker, timeout = nil)
    park(timeout)
  end

  # The only hook that other threads call.
  def unblock(_blocker, fiber)
    @mutex.synchronize { @runnable << [fiber, true] }
    @wake_w.write_nonblock(".", exception: false)
  end

  def fiber(&block)
    Fiber.new(blocking: false, &block).tap(&:resume)
  end

  def run
    until @waiting.empty? && @timers.empty? && @parked.empty?
      ready = select
      resume_runnable
      resume_ready(ready)
      resume_closed
      resume_expired
    end
  end

  def close
    run
  ensure
    @wake_r.close
    @wake_w.close
  end

  private

  # Returns what the fiber is resumed with: the ready events, true when unblocked, false at the timeout.
  def park(timeout)
    fiber = Fiber.current
    @timers[fiber] = now + timeout if timeout
    @parked[fiber] = true
    Fiber.yield
  ensure
    @parked.delete(fiber)
    @timers.delete(fiber)
  end

  def select
    readable = ios(IO::READABLE) << @wake_r
    ready = IO.select(readable, ios(IO::WRITABLE), nil, patience) || [[], []]
    @wake_r.read_nonblock(4096, exception: false) if ready[0].delete(@wake_r)
    ready
  rescue IOError, Errno::EBADF
    [[], []] # somebody has closed what a fiber waits for
  end

  def ios(event)
    @waiting.each_value.select { |wait| wait.events.anybits?(event) }.map(&:io)
  end

  def patience
    return 0 unless @mutex.synchronize { @runnable.empty? }

    first = @timers.values.min
    first && [first - now, 0].max
  end

  def resume_runnable
    @mutex.synchronize { @runnable.slice!(0..) }.each { |fiber, value| fiber.resume(value) if fiber.alive? }
  end

  def resume_ready(ready)
    @waiting.to_a.each do |fiber, wait|
      events = events_for(wait, ready[0], ready[1])
      fiber.resume(events) if events.positive? && @waiting[fiber].equal?(wait)
    end
  end

  # They see for themselves.
  def resume_closed
    @waiting.to_a.each do |fiber, wait|
      fiber.resume(wait.events) if wait.io.closed? && @waiting[fiber].equal?(wait)
    end
  end

  def events_for(wait, readable, writable)
    events = 0
    events |= IO::READABLE if readable.include?(wait.io)
    events |= IO::WRITABLE if writable.include?(wait.io)
    events & wait.events
  end

  def resume_expired
    @timers.to_a.each { |fiber, time| fiber.resume(false) if time <= now && @timers[fiber] == time }
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
