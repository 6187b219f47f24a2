# frozen_string_literal: true

# TLS in userspace: what it costs to read and encrypt a byte.

require_relative "support"
require_relative "support/heartbeat"
require_relative "support/tls_drain"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  To an OpenSSL::SSL::SSLSocket that encrypts in userspace, from 64 KiB up, copy_to_socket costs less CPU per byte than
  IO.copy_stream, which is given the same socket, and it makes no object for a record: each is read into one buffer, and
  encrypted from there. Under Async no other fiber waits more than 5 ms because of it, counted in the CPU that this
  process used between two beats of a heartbeat. Beside a thread that computes in Ruby it takes no longer than
  IO.copy_stream, since it does not give the GVL up to read what is in the page cache.
TEXT

OURS = "copy_to_socket"
THEIRS = "IO.copy_stream"
RECORD = 16 * Bench::KIB

def write_in_records(ssl, file, length)
  buffer = String.new(capacity: RECORD)
  (0...length).step(RECORD) { |at| ssl.write(file.pread([RECORD, length - at].min, at, buffer)) }
end

PEERS = {
  OURS => ->(ssl, file, length) { S.copy_to_socket(ssl, file, 0, length) },
  THEIRS => ->(ssl, file, length) { IO.copy_stream(file, ssl, length, 0) },
  "pread and ssl.write, 16 KiB" => ->(ssl, file, length) { write_in_records(ssl, file, length) }
}.freeze

SIZES = [64 * Bench::KIB, Bench::MIB, 16 * Bench::MIB].freeze
# As many calls in a row as make this much.
STRETCH = SIZES.max
BUSY_LENGTH = Bench::MIB

# CPU seconds and objects per call.
Cost = Struct.new(:cpu, :objects)

def cost(calls, &block)
  objects = GC.stat(:total_allocated_objects)
  sample = Bench::Measure.time { calls.times(&block) }
  Cost.new(sample.cpu / calls, (GC.stat(:total_allocated_objects) - objects) / calls.to_f)
end

def costs(version, length, file, rounds)
  Bench::TlsDrain.open(version) do |drain|
    Bench::Measure.interleave(PEERS, rounds: rounds) do |name, peer|
      Bench.progress("tls: #{version}, #{Bench.size(length)}, #{name}")
      drain.settled { |ssl| cost(STRETCH / length) { peer.call(ssl, file, length) } }
    end
  end
end

def under_async(file, rounds)
  Bench::TlsDrain.open("TLS 1.3") do |drain|
    Bench::Measure.interleave(PEERS.slice(OURS, THEIRS), rounds: rounds) do |name, peer|
      Bench.progress("tls: beside a heartbeat, #{name}")
      heartbeat = Bench::Heartbeat.new
      drain.settled do |ssl|
        Async { |task| heartbeat.beside(task) { 4.times { peer.call(ssl, file, STRETCH) } } }.wait
      end
      heartbeat
    end
  end
end

def beside_computing_thread(file, rounds)
  thread = Thread.new { loop { Integer.sqrt(1 << 40) } }
  Bench::TlsDrain.open("TLS 1.3") do |drain|
    Bench::Measure.interleave(PEERS.slice(OURS, THEIRS), rounds: rounds) do |name, peer|
      Bench.progress("tls: beside a computing thread, #{name}")
      drain.settled do |ssl|
        Thread.pass
        Bench::Measure.time { peer.call(ssl, file, BUSY_LENGTH) }.wall
      end
    end
  end
ensure
  thread.kill.join
end

def report_costs(report, versions, file, rounds)
  rows = []
  versions.each do |version|
    series = Hash.new { |hash, name| hash[name] = {} }
    SIZES.each do |length|
      samples = costs(version, length, file, rounds)
      reference = samples.fetch(THEIRS).map(&:cpu)
      samples.each do |name, own|
        per_gb = Bench::Statistics.estimate(own.map { |cost| cost.cpu * 1e9 / length })
        ratio = Bench::Statistics.ratio(own.map(&:cpu), reference)
        objects = Bench::Statistics.median(own.map(&:objects))
        rows << [version, Bench.size(length), name, per_gb, ratio, objects]
        series[name][length] = per_gb
        next unless name == OURS

        report.check("CPU against #{THEIRS}, #{version}, #{Bench.size(length)}", ratio, at_most: 1.0)
        next unless length == SIZES.last

        report.check("objects per record, #{version}, #{Bench.size(length)}",
                     Bench::Statistics.exactly((objects * RECORD / length).round(2)), at_most: 0.1)
      end
    end
    report.chart("CPU, #{version}", over: "response", unit: "s per GB", series: series)
  end
  report.table("Cost of a response", ["version", "size", "peer", "CPU s/GB", "#{THEIRS} = 1", "objects per call"], rows)
end

def report_turns(report, file, rounds)
  hearts = under_async(file, rounds)
  worst = hearts.transform_values { |own| Bench::Statistics.estimate(own.map { |heart| heart.cpu.max * 1000 }) }
  report.check("most CPU between two beats", worst.fetch(OURS), at_most: 5, unit: "ms")
  rows = hearts.map do |name, own|
    [name, worst.fetch(name), Bench::Statistics.estimate(own.map { |heart| heart.late.max * 1000 })]
  end
  report.table("A heartbeat beside 64 MiB over TLS 1.3, under Async",
               ["transfer", "most CPU between beats ms", "late, longest ms"], rows)
end

def report_busy(report, file, rounds)
  walls = beside_computing_thread(file, rounds)
  report.check("time against #{THEIRS}, #{Bench.size(BUSY_LENGTH)} beside a computing thread",
               Bench::Statistics.ratio(walls.fetch(OURS), walls.fetch(THEIRS)), at_most: 1.0)
  rows = walls.map { |name, own| [name, Bench::Statistics.estimate(own.map { |wall| wall * 1000 })] }
  report.table("#{Bench.size(BUSY_LENGTH)} over TLS 1.3 beside a thread that computes", %w[transfer ms], rows)
end

SETTINGS = {
  quick: { versions: ["TLS 1.3"], rounds: 8, turns: 2, busy: 3 },
  full: { versions: Bench::TlsDrain::VERSIONS.keys, rounds: 80, turns: 15, busy: 20 }
}.freeze

Bench.run("tls", CLAIM, **SETTINGS) do |report, versions:, rounds:, turns:, busy:|
  report.note("#{OpenSSL::OPENSSL_LIBRARY_VERSION}, gem openssl #{OpenSSL::VERSION}. The reader does not decrypt.")
  Bench::SourceFile.open(STRETCH) do |file|
    report_costs(report, versions, file, rounds)
    report_turns(report, file, turns)
    report_busy(report, file, busy)
  end
end
