# frozen_string_literal: true

# Under a fiber scheduler: how long a transfer that never has to wait keeps the other fibers waiting, and at what cost.

require_relative "support"
require_relative "support/heartbeat"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Under Async, while 1 GiB goes to a reader that is always ready, no other fiber waits more than 5 ms for its turn
  because of it, and the throughput is at least 90 % of that of the same transfer in a plain thread, at 1.4 times
  its CPU at most: every 4 MiB, not 16, it comes back through Ruby and the event loop. A heartbeat fiber
  sleeps 1 ms at a time and notes how late it wakes. That machine's other work makes it late too, and is no transfer's
  doing: so what counts is the CPU that this process used between two beats, and how much longer the longest wait was
  than beside the same transfer in another process. The throughput is measured without a heartbeat, which has a cost of
  its own, in many short rounds, sender and reader on a CPU each; the plain thread takes part twice.
TEXT

# What a turn costs shows in many rounds, not in long ones.
RATE_LENGTH = 64 * Bench::MIB

OURS = "copy_to_socket"
THREAD = "copy_to_socket in a plain thread"
COPY_STREAM = "IO.copy_stream"
ELSEWHERE = "no transfer here, the same in another process"

# In the fiber or the thread that calls.
TRANSFERS = {
  OURS => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) },
  COPY_STREAM => ->(socket, file, length) { IO.copy_stream(file, socket, length, 0) }
}.freeze

def in_a_fiber(name)
  lambda do |socket, file, length|
    Async { Bench::Measure.time { TRANSFERS.fetch(name).call(socket, file, length) } }.wait
  end
end

def in_a_thread
  ->(socket, file, length) { Bench::Measure.time { S.copy_to_socket_blocking(socket, file, 0, length) } }
end

RATES = { THREAD => in_a_thread, "#{THREAD} again" => in_a_thread, OURS => in_a_fiber(OURS),
          COPY_STREAM => in_a_fiber(COPY_STREAM) }.freeze

WAITS = {
  **TRANSFERS.transform_values do |transfer|
    lambda do |drain, file, length|
      drain.ready(length) { |socket| Bench::Heartbeat.beside { transfer.call(socket, file, length) } }
    end
  end,
  "no transfer" => ->(*) { Bench::Heartbeat.beside { sleep(0.2) } },
  ELSEWHERE => lambda do |drain, file, length|
    drain.ready(length) { |socket| Bench::Heartbeat.beside_another_process { S.copy_to_socket_blocking(socket, file, 0, length) } }
  end
}.freeze

def rates(file, rounds)
  Bench::Drain.open do |drain|
    drain.apart
    Bench::Measure.interleave(RATES, rounds: rounds) do |name, peer|
      Bench.progress("turns: throughput, #{name}")
      drain.ready(RATE_LENGTH) { |socket| peer.call(socket, file, RATE_LENGTH) }
    end
  end
end

def waits(file, length, rounds)
  Bench::Drain.open do |drain|
    Bench::Measure.interleave(WAITS, rounds: rounds) do |name, peer|
      Bench.progress("turns: longest wait, #{name}")
      peer.call(drain, file, length)
    end
  end
end

def milliseconds(beats, figure)
  Bench::Statistics.estimate(beats.map { |beat| beat[figure] * 1000 })
end

SETTINGS = { quick: { transfers: 12, rounds: 2, length: 64 * Bench::MIB },
             full: { transfers: 200, rounds: 15, length: Bench::GIB } }.freeze

Bench.run("turns", CLAIM, **SETTINGS) do |report, transfers:, rounds:, length:|
  # The waits first: they are measured where the system puts the processes.
  beats = Bench::SourceFile.open(length) { |file| waits(file, length, rounds) }
  samples = Bench::SourceFile.open(RATE_LENGTH) { |file| rates(file, transfers) }

  ours = beats.fetch(OURS)
  report.check("most CPU between two beats", milliseconds(ours, :worst_cpu), at_most: 5, unit: "ms")
  longest = [ours, beats.fetch(ELSEWHERE)].map { |own| own.map { |beat| beat.worst * 1000 } }
  report.check("longest wait, less that beside the same transfer in another process",
               Bench::Statistics.difference(*longest), at_most: 5, unit: "ms")
  ratios = samples.transform_values do |own|
    %i[wall cpu].to_h do |clock|
      [clock, Bench::Statistics.ratio(own.map(&clock), samples.fetch(THREAD).map(&clock))]
    end
  end
  report.check("time under Async against a plain thread", ratios.dig(OURS, :wall), at_most: 1 / 0.9)
  report.check("CPU under Async against a plain thread", ratios.dig(OURS, :cpu), at_most: 1.4)

  report.table("Lateness of a heartbeat beside #{Bench.size(length)}",
               ["transfer", "99th percentile ms", "longest ms", "most CPU between two beats ms", "longest of all ms"],
               beats.map do |name, own|
                 [name, *%i[percentile worst worst_cpu].map { |figure| milliseconds(own, figure) },
                  own.map(&:worst).max * 1000]
               end)
  report.table("#{Bench.size(RATE_LENGTH)} without a heartbeat",
               ["transfer", "wall s/GB", "CPU s/GB", "wall against the plain thread", "CPU against it"],
               samples.map do |name, own|
                 [name, *%i[wall cpu].map { |clock| Bench::Statistics.median(own.map(&clock)) * 1e9 / RATE_LENGTH },
                  *ratios.fetch(name).values]
               end)
  lateness = beats.transform_values do |own|
    { "longest" => milliseconds(own, :worst), "most CPU between beats" => milliseconds(own, :worst_cpu) }
  end
  report.chart("Lateness beside #{Bench.size(length)}", over: "", unit: "ms", limit: 5, series: lateness)
end
