# frozen_string_literal: true

require "io/stream" unless IO.method_defined?(:timeout) # Ruby 3.1: what Async needs of IO is in that gem
require "async"

module Bench
  # A fiber that sleeps a millisecond at a time and notes how late it wakes, on the wall and in this process's CPU time.
  class Heartbeat
    BEAT = 0.001
    private_constant :BEAT

    # What it noticed beside something: seconds that took, and the longest a beat was late, wall and CPU.
    Beats = Struct.new(:wall, :worst, :worst_cpu, :percentile)

    attr_reader :late, :cpu

    class << self
      # @return [Beats] beside the block, which gets a task of the event loop
      def beside
        heartbeat = new
        wall = Async { |task| heartbeat.beside(task) { Measure.time { yield task }.wall } }.wait
        Beats.new(wall, heartbeat.late.max, heartbeat.cpu.max, Statistics.percentile(heartbeat.late, 99))
      end

      # @return [Beats] the same, with the block in another process
      def beside_another_process
        process = fork do
          yield
        ensure
          exit!
        end
        beside { Process.wait(process) }
      end
    end

    def initialize
      @late = []
      @cpu = []
    end

    # Returns what the block does. The heart has its turn before and after.
    def beside(task)
      heart = task.async { beat }
      sleep(2 * BEAT)
      result = yield
      sleep(2 * BEAT)
      result
    ensure
      heart&.stop
    end

    private

    def beat
      loop do
        sample = Measure.time { sleep(BEAT) }
        @late << [sample.wall - BEAT, 0].max
        @cpu << sample.cpu
      end
    end
  end
end
