# frozen_string_literal: true

module Bench
  # What one peer did in one round. CPU seconds are those of this process, all threads, user and system.
  Sample = Struct.new(:wall, :cpu)

  # Clocks, and peers taking turns.
  module Measure
    module_function

    # The process clock is getrusage(RUSAGE_SELF) in nanoseconds. RUSAGE_THREAD would lag by up to a scheduler tick.
    def time
      wall = now
      cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
      yield
      cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - cpu
      Sample.new(now - wall, cpu)
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # Calls the block with each peer's name and action in turn, once per round, the order changing from round to round.
    # Returns the block's results by name, without those of a first round that warms up.
    def interleave(peers, rounds:, warm_up: true)
      results = peers.to_h { |name, _| [name, []] }
      (warm_up ? 0 : 1).upto(rounds) do |round|
        order = peers.to_a.rotate(round)
        order.reverse! if round.odd?
        order.each do |name, action|
          result = yield name, action
          results[name] << result if round.positive?
        end
      end
      results
    end
  end
end
