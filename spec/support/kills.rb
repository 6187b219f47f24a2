# frozen_string_literal: true

# Thread#kill at any point of what a thread does.
module Kills
  TIMES = 100
  # How many objects of those threads the garbage collector may still take for used.
  FEW = 10

  # Runs the block in one thread after another, each time until the thread is killed. Another thread is busy, so
  # that they also lose the GVL where they don't give it up.
  def kill_often(&block)
    busy = Thread.new { loop { Thread.pass } }
    TIMES.times do
      thread = Thread.new { loop(&block) }
      sleep(rand / 1000)
      thread.kill.join
    end
  ensure
    busy.kill.join
  end
end
