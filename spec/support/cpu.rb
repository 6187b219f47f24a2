# frozen_string_literal: true

# CPU time of this process, to tell who waits from who spins.
module Cpu
  if RUBY_ENGINE == "jruby"
    BEANS = java.lang.management.ManagementFactory.getThreadMXBean
    OURS = /\A(?:main|Ruby-\d+-Thread)/

    # Only of the threads that run Ruby: those of the JVM itself compile and collect when they like.
    def self.seconds
      ids = BEANS.getAllThreadIds.select { |id| BEANS.getThreadInfo(id)&.getThreadName.to_s.match?(OURS) }
      ids.sum { |id| [BEANS.getThreadCpuTime(id), 0].max } / 1e9
    end
  else
    def self.seconds
      Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
    end
  end

  # What the block takes.
  def cpu_seconds
    before = Cpu.seconds
    yield
    Cpu.seconds - before
  end
end
