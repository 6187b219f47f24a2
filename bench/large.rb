# frozen_string_literal: true

# CPU per byte from 1 MiB up, against a C loop over sendfile(2).

require_relative "support"
require_relative "support/c_loop"
require "sendfile"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  From 1 MiB up, copy_to_socket costs no more than 5 % more CPU per byte than a C loop over sendfile(2) in the same
  process on the same non-blocking socket. Loopback TCP, the reader in another process and always ready; as many calls
  in a row as make 16 MiB. The C loop takes part twice: its ratio to itself is the noise.
TEXT

PEERS = {
  "C loop" => ->(socket, file, length) { Bench.c_loop(socket.fileno, file.fileno, 0, length) },
  "C loop again" => ->(socket, file, length) { Bench.c_loop(socket.fileno, file.fileno, 0, length) },
  "copy_to_socket" => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) },
  "IO.copy_stream" => ->(socket, file, length) { IO.copy_stream(file, socket, length, 0) },
  "gem sendfile" => ->(socket, file, length) { socket.sendfile(file, 0, length) }
}.freeze

STRETCH = 16 # MiB
ROUNDS = { 1 => 150, 4 => 150, 16 => 150, 64 => 60 }.freeze
QUICK_ROUNDS = { 1 => 24, 4 => 24, 16 => 24 }.freeze

Bench.run("large", CLAIM, quick: { rounds: QUICK_ROUNDS }, full: { rounds: ROUNDS }) do |report, rounds:|
  rows = []
  rounds.each do |mib, count|
    length = mib * Bench::MIB
    calls = [STRETCH / mib, 1].max
    samples = Bench::SourceFile.open(length) do |file|
      Bench::Drain.open do |drain|
        Bench::Measure.interleave(PEERS, rounds: count) do |name, peer|
          Bench.progress("large: #{mib} MiB, #{name}")
          drain.ready(length * calls) do |socket|
            Bench::Measure.time { calls.times { peer.call(socket, file, length) } }
          end
        end
      end
    end

    reference = samples.fetch("C loop")
    samples.each do |name, own|
      ratio = Bench::Statistics.ratio(own.map(&:cpu), reference.map(&:cpu))
      report.check("CPU against the C loop, #{mib} MiB", ratio, at_most: 1.05) if name == "copy_to_socket"
      per_gb = [own.map(&:cpu), own.map(&:wall)].map do |seconds|
        format("%.3f", Bench::Statistics.median(seconds) * 1e9 / (length * calls))
      end
      rows << [Bench.size(length), name, *per_gb, ratio]
    end
  end
  report.table("Seconds per GB (median), CPU against the C loop (median of the rounds' ratios)",
               ["size", "peer", "CPU s/GB", "wall s/GB", "CPU ratio"], rows)
end
