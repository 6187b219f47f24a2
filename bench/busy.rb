# frozen_string_literal: true

# 10 MiB beside one thread that computes in Ruby: each release of the GVL costs the transfer up to a whole timeslice.

require_relative "support"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Beside one thread that computes in Ruby, 10 MiB through copy_to_socket take no longer than through IO.copy_stream:
  the GVL is released once for the transfer, waiting included, and so waited for once.
TEXT

LENGTH = 10 * Bench::MIB

OURS = "copy_to_socket"
THEIRS = "IO.copy_stream"
PEERS = {
  OURS => ->(socket, file) { S.copy_to_socket(socket, file, 0, LENGTH) },
  THEIRS => ->(socket, file) { IO.copy_stream(file, socket, LENGTH, 0) }
}.freeze

def beside_a_computing_thread
  sum = 0
  thread = Thread.new { loop { sum += 1 } }
  yield
ensure
  thread.kill.join
end

def wall(rounds, label)
  Bench::SourceFile.open(LENGTH) do |file|
    Bench::Drain.open do |drain|
      # Told of everything at once: talking to the reader in between would be hand-overs of the GVL too.
      drain.ready((rounds + 1) * PEERS.size * LENGTH) do |socket|
        Bench::Measure.interleave(PEERS, rounds: rounds) do |name, peer|
          Bench.progress("busy: #{label}, #{name}")
          Bench::Measure.time { peer.call(socket, file) }.wall
        end
      end
    end
  end
end

Bench.run("busy", CLAIM, quick: { rounds: 20 }, full: { rounds: 100 }) do |report, rounds:|
  situations = {
    "alone" => wall(rounds, "alone"),
    "beside a computing thread" => beside_a_computing_thread { wall(rounds, "beside a computing thread") }
  }
  rows = situations.flat_map do |situation, walls|
    walls.map do |name, own|
      milliseconds = [50, 95].map { |percentage| Bench::Statistics.percentile(own, percentage) * 1000 }
      [situation, name, *milliseconds.map { |value| format("%.1f", value) }]
    end
  end
  walls = situations.fetch("beside a computing thread")
  report.check("wall time against IO.copy_stream", Bench::Statistics.ratio(walls.fetch(OURS), walls.fetch(THEIRS)),
               at_most: 1.0)
  report.table("Wall time of 10 MiB", ["situation", "peer", "median ms", "95th percentile ms"], rows)
end
