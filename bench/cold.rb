# frozen_string_literal: true

# A file that is not in the page cache: how long its transfer keeps the other fibers waiting for the disk.

require_relative "support"
require_relative "support/compile"
require_relative "support/heartbeat"
require_relative "support/slow_disk"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Under Async, while a file goes out that is not in the page cache, no other fiber waits more than 10 ms for its turn
  because of it: whoever waits for the disk is not the event loop. Before each transfer the file is dropped from the
  page cache, and mincore(2) asked whether it is gone. A heartbeat fiber sleeps 1 ms at a time and notes how late it
  wakes; what counts is how much later than beside the same transfer in another process. The reader is always ready.
TEXT

# Bytes per second of a disk that is slow, if the machine's own is not.
SLOW = 50 * Bench::MIB

OURS = "copy_to_socket"
ELSEWHERE = "no transfer here, the same in another process"
COLD = "cold"
WARM = "in the page cache"

# What one round has to tell of one peer: seconds.
PEERS = {
  OURS => lambda do |socket, file, length|
    Bench::Heartbeat.beside { S.copy_to_socket(socket, file, 0, length) }
  end,
  "IO.copy_stream" => lambda do |socket, file, length|
    Bench::Heartbeat.beside { IO.copy_stream(file, socket, length, 0) }
  end,
  ELSEWHERE => lambda do |socket, file, length|
    Bench::Heartbeat.beside_another_process { S.copy_to_socket_blocking(socket, file, 0, length) }
  end
}.freeze

DROPS = 5
# Of the file. One page that a socket still refers to keeps a whole large folio, of up to 2 MiB.
MAY_STAY = 1 / 8r

# Whether hardly anything of the file is in memory any more: a file system in memory, or one shared with another
# system, may keep it.
def drop(file, length)
  DROPS.times do
    file.advise(:dontneed)
    return true if Bench.resident(file.fileno, length) <= length * MAY_STAY

    sleep 0.05 # a page that was used just now is not given up at once
  end
  false
end

def measure(file, length, rounds, label)
  Bench::Drain.open do |drain|
    Bench::Measure.interleave(PEERS, rounds: rounds, warm_up: label == WARM) do |name, peer|
      Bench.progress("cold: #{label}, #{name}")
      raise "bench: the file stays in the page cache" unless label == WARM || drop(file, length)

      drain.ready(length) { |socket| peer.call(socket, file, length) }
    end
  end
end

def milliseconds(beats, figure)
  Bench::Statistics.estimate(beats.map { |beat| beat[figure] * 1000 })
end

SETTINGS = {
  quick: { rounds: 2, length: 32 * Bench::MIB, slowed: nil },
  full: { rounds: 7, length: 256 * Bench::MIB, slowed: 64 * Bench::MIB }
}.freeze

Bench.run("cold", CLAIM, **SETTINGS) do |report, rounds:, length:, slowed:|
  Bench::Compile.load!("page_cache")
  situations = Bench::SourceFile.open(length) do |file|
    unless drop(file, length)
      report.skip("a cold file", "#{Bench::Machine.filesystem(file.path)} keeps it; BENCH_DIR is another folder")
      next {}
    end

    found = { COLD => measure(file, length, rounds, COLD) }
    if slowed
      label = "cold, #{Bench.size(slowed)}, disk slowed to #{Bench.size(SLOW)} a second"
      why = Bench::SlowDisk.limit(file, SLOW) { found[label] = measure(file, slowed, rounds, label) }
      report.skip("a slow disk", why) if why
    end
    found[WARM] = measure(file, length, rounds, WARM)
    found
  end

  rows = situations.flat_map do |label, peers|
    peers.map do |name, own|
      [label, name, *%i[wall percentile worst].map { |figure| milliseconds(own, figure) }, own.map(&:worst).max * 1000]
    end
  end
  situations.except(WARM).each do |label, peers|
    longest = peers.values_at(OURS, ELSEWHERE).map { |own| own.map { |beat| beat.worst * 1000 } }
    report.check("longest wait, less that beside the same transfer in another process, #{label}",
                 Bench::Statistics.difference(*longest), at_most: 10, unit: "ms")
  end
  report.table("Lateness of a heartbeat beside #{Bench.size(length)}",
               ["file", "transfer", "wall ms", "99th percentile ms", "longest ms", "longest of all ms"], rows)
  series = PEERS.to_h { |name, _| [name, situations.transform_values { |peers| milliseconds(peers[name], :worst) }] }
  report.chart("Longest wait of another fiber", over: "", unit: "ms", limit: 10, log: true, series: series)
end
