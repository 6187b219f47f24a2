# frozen_string_literal: true

# Waiting for a state that sends no event (a thread asleep, a full queue).
module Eventually
  class NeverHappened < StandardError; end

  # Seconds by which a busy machine may be late with what happens in time; what does not, never comes.
  LATE = 3

  def self.now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  def self.until(what, within: 10, every: 0.002)
    deadline = now + within
    loop do
      result = yield
      return result if result
      raise NeverHappened, "#{what}: not within #{within} s" if now > deadline

      sleep every
    end
  end

  def eventually(what = "the condition", ...)
    Eventually.until(what, ...)
  end

  # Seconds the block took, by the monotonic clock.
  def seconds
    start = Eventually.now
    yield
    Eventually.now - start
  end
end
