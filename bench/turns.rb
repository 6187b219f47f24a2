# frozen_string_literal: true

# Under a fiber scheduler: how long a transfer that never has to wait keeps the other fibers waiting, and at what cost.

require_relative "support"
# Brings the IO#timeout that Async's waits expect, on the Rubies that lack it.
require "io/stream"
require "async"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Under Async, while 1 GiB goes to a reader that is always ready, no other fiber waits more than 5 ms for its turn
  because of it, and the throughput is at least 90 % of that of the same transfer in a plain thread. A heartbeat fiber
  sleeps 1 ms at a time and notes how late it wakes. That machine's other work makes it late too, and is no transfer's
  doing: so what counts is the CPU that this process used between two beats, and how much longer the longest wait was
  than beside the same transfer in another process.
TEXT

BEAT = 0.001

# Lateness of a fiber that sleeps, in seconds on the wall and of this process's CPU time.
class Heartbeat
  attr_reader :late, :cpu

  def initialize
    @late = []
    @cpu = []
  end

  # Returns what the block does, which has to let the heartbeat have its turn at least once more when it is done.
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
      sample = Bench::Measure.time { sleep(BEAT) }
      @late << [sample.wall - BEAT, 0].max
      @cpu << sample.cpu
    end
  end
end

# What one round has to tell of one peer.
Beats = Struct.new(:wall, :worst, :worst_cpu, :percentile)

def under_async
  heartbeat = Heartbeat.new
  wall = Async { |task| heartbeat.beside(task) { Bench::Measure.time { yield task }.wall } }.wait
  Beats.new(wall, heartbeat.late.max, heartbeat.cpu.max, Bench::Statistics.percentile(heartbeat.late, 99))
end

def in_a_thread(&block)
  Beats.new(Thread.new { Bench::Measure.time(&block).wall }.value)
end

# The transfer in another process; the heartbeat here.
def in_another_process(drain, length, &block)
  drain.ready(length) do |socket|
    process = fork do
      block.call(socket)
    ensure
      exit!
    end
    under_async { Process.wait(process) }
  end
end

OURS = "copy_to_socket"
THREAD = "copy_to_socket in a plain thread"
ELSEWHERE = "no transfer here, the same in another process"
PEERS = {
  THREAD => lambda do |drain, file, length|
    drain.ready(length) { |socket| in_a_thread { S.copy_to_socket(socket, file, 0, length) } }
  end,
  OURS => lambda do |drain, file, length|
    drain.ready(length) { |socket| under_async { S.copy_to_socket(socket, file, 0, length) } }
  end,
  "IO.copy_stream" => lambda do |drain, file, length|
    drain.ready(length) { |socket| under_async { IO.copy_stream(file, socket, length, 0) } }
  end,
  "no transfer" => ->(_, _, _) { under_async { sleep(0.3) } },
  ELSEWHERE => lambda do |drain, file, length|
    in_another_process(drain, length) { |socket| S.copy_to_socket_blocking(socket, file, 0, length) }
  end
}.freeze

def milliseconds(seconds)
  seconds ? format("%.2f", seconds * 1000) : "–"
end

def row(name, beats, reference)
  own = beats.map(&:wall)
  worst = beats.filter_map(&:worst)
  [name, milliseconds(Bench::Statistics.median(own)),
   name.start_with?("no ") ? "–" : Bench::Statistics.ratio(reference, own),
   *[beats.filter_map(&:percentile), worst, beats.filter_map(&:worst_cpu)].map do |values|
     milliseconds(values.empty? ? nil : Bench::Statistics.median(values))
   end, milliseconds(worst.max)]
end

SETTINGS = { quick: { rounds: 3, length: 128 * Bench::MIB }, full: { rounds: 15, length: Bench::GIB } }.freeze

Bench.run("fibers", CLAIM, **SETTINGS) do |report, rounds:, length:|
  beats = Bench::SourceFile.open(length) do |file|
    Bench::Drain.open do |drain|
      Bench::Measure.interleave(PEERS, rounds: rounds) do |name, peer|
        Bench.progress("fibers: #{name}")
        peer.call(drain, file, length)
      end
    end
  end

  thread = beats.fetch(THREAD).map(&:wall)
  ours = beats.fetch(OURS)
  kept = Bench::Statistics.estimate(ours.map { |beat| beat.worst_cpu * 1000 })
  waits = [ours, beats.fetch(ELSEWHERE)].map { |own| own.map { |beat| beat.worst * 1000 } }
  report.check("most CPU between two beats", kept, at_most: 5, unit: "ms")
  report.check("longest wait, less that beside the same transfer in another process",
               Bench::Statistics.difference(*waits), at_most: 5, unit: "ms")
  report.check("time under Async against a plain thread", Bench::Statistics.ratio(ours.map(&:wall), thread),
               at_most: 1 / 0.9)
  report.table("#{Bench.size(length)}: median of the rounds; the last column is the worst of all",
               ["transfer", "wall ms", "throughput against the plain thread", "late, 99th percentile ms",
                "late, longest ms", "most CPU between beats ms", "late, longest of all ms"],
               beats.map { |name, own| row(name, own, thread) })
end
