# frozen_string_literal: true

# Responses beside threads that compute in Ruby: each release of the GVL costs up to a timeslice of each of them.

require_relative "support"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Beside threads that compute in Ruby, 10 MiB through copy_to_socket take no longer than through IO.copy_stream: the
  GVL is released once for the transfer, waiting included, and so waited for once. That wait is up to a timeslice of
  100 ms for each computing thread, and a small response may have it, too, unless keep_gvl is on: then a response that
  neither the page cache nor the socket can block keeps the GVL, and 8 KiB take 1 ms at most, 99 times in 100. Each
  response begins just after the GVL was handed over (Thread.pass), as one does that follows the reading of a request.
TEXT

SIZES = [8 * Bench::KIB, 1 * Bench::MIB, 10 * Bench::MIB].freeze

OURS = "copy_to_socket"
KEEPING = "copy_to_socket, keep_gvl"
THEIRS = "IO.copy_stream"

def keeping_the_gvl
  S.keep_gvl = true
  yield
ensure
  S.keep_gvl = false
end

PEERS = {
  OURS => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) },
  THEIRS => ->(socket, file, length) { IO.copy_stream(file, socket, length, 0) },
  KEEPING => ->(socket, file, length) { keeping_the_gvl { S.copy_to_socket(socket, file, 0, length) } }
}.freeze

def beside_computing_threads(count)
  threads = Array.new(count) do
    Thread.new do
      sum = 0
      loop { sum += 1 }
    end
  end
  yield
ensure
  threads.each(&:kill).each(&:join)
end

def walls(length, rounds, label)
  Bench::SourceFile.open(length) do |file|
    Bench::Drain.open do |drain|
      # Told of everything at once: talking to the reader in between would be hand-overs of the GVL too.
      drain.ready((rounds + 1) * PEERS.size * length) do |socket|
        Bench::Measure.interleave(PEERS, rounds: rounds) do |name, peer|
          Bench.progress("busy: #{label}, #{Bench.size(length)}, #{name}")
          Thread.pass
          Bench::Measure.time { peer.call(socket, file, length) }.wall
        end
      end
    end
  end
end

# Of fewer rounds one hiccup of the machine would be the 99th percentile.
FOR_A_PERCENTILE = 20

def slowest(walls)
  Bench::Statistics.exactly(Bench::Statistics.percentile(walls, 99) * 1000)
end

def check(report, walls, length, beside)
  what = "#{Bench.size(length)} #{beside}"
  if length == SIZES.last
    ratio = Bench::Statistics.ratio(walls.fetch(OURS), walls.fetch(THEIRS))
    report.check("time against IO.copy_stream, #{what}", ratio, at_most: 1.0)
  elsif length == SIZES.first
    if walls.fetch(KEEPING).size >= FOR_A_PERCENTILE
      report.check("99th percentile with keep_gvl, #{what}", slowest(walls.fetch(KEEPING)), at_most: 1.0, unit: "ms")
    end
    report.note("#{what}, 99th percentile: #{slowest(walls.fetch(OURS))} ms, and with keep_gvl " \
                "#{slowest(walls.fetch(KEEPING))} ms.")
  end
end

# A round beside four threads takes seconds.
SETTINGS = {
  quick: { sizes: SIZES.values_at(0, 2), rounds: { 0 => 50, 1 => 4 } },
  full: { sizes: SIZES, rounds: { 0 => 300, 1 => 80, 4 => 20 } }
}.freeze

Bench.run("busy", CLAIM, **SETTINGS) do |report, sizes:, rounds:|
  rows = []
  charts = Hash.new { |hash, count| hash[count] = Hash.new { |series, name| series[name] = {} } }
  rounds.each do |threads, count|
    sizes.each do |length|
      beside = "beside #{threads} computing thread#{"s" unless threads == 1}"
      walls = beside_computing_threads(threads) { walls(length, count, beside) }
      check(report, walls, length, beside) if threads.positive?
      walls.each do |name, own|
        milliseconds = [50, 99].map { |percentage| Bench::Statistics.percentile(own, percentage) * 1000 }
        rows << [threads, Bench.size(length), name, *milliseconds, Bench::Statistics.ratio(own, walls.fetch(THEIRS))]
        charts[threads][name][length] = milliseconds.last
      end
    end
  end
  report.table("Wall time of a response",
               ["computing threads", "size", "peer", "median ms", "99th percentile ms", "IO.copy_stream = 1"], rows)
  charts.each do |threads, series|
    report.chart("99th percentile, #{threads} computing threads", over: "response", unit: "ms", log: true,
                                                                  series: series)
  end
end
