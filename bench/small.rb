# frozen_string_literal: true

# CPU per call of 4 to 64 KiB, against what Ruby has for it otherwise.

require_relative "support"
require "sendfile"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  From 4 to 64 KiB a call of copy_to_socket costs no more CPU than the best of IO.copy_stream, pread and write, and the
  gem sendfile. Loopback TCP with TCP_NODELAY; the reader, in another process, sleeps while a burst that fits in the
  socket's buffers is sent, so the figures hold the calls and nothing else.
TEXT

SIZES = [4, 8, 16, 32, 64].map { |kib| kib * Bench::KIB }.freeze
BURST = 128 * Bench::KIB

BUFFER = String.new(capacity: SIZES.max)
OURS = "copy_to_socket"
# The primitive alone: what is above it is the cost of the façade.
PRIMITIVE = "copy_small"
PEERS = {
  OURS => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) },
  PRIMITIVE => ->(socket, file, length) { S.copy_small(socket, file, 0, length) },
  "IO.copy_stream" => ->(socket, file, length) { IO.copy_stream(file, socket, length, 0) },
  "pread, write" => ->(socket, file, length) { socket.write(file.pread(length, 0)) },
  "pread into a reused buffer, write" => ->(socket, file, length) { socket.write(file.pread(length, 0, BUFFER)) },
  "gem sendfile" => ->(socket, file, length) { socket.sendfile(file, 0, length) }
}.freeze

Bench.run("small", CLAIM, quick: { rounds: 150 }, full: { rounds: 1500 }) do |report, rounds:|
  rows = []
  SIZES.each do |length|
    calls = BURST / length
    cpu = Bench::SourceFile.open(length) do |file|
      Bench::Drain.open do |drain|
        Bench::Measure.interleave(PEERS, rounds: rounds) do |name, peer|
          Bench.progress("small: #{Bench.size(length)}, #{name}")
          drain.asleep(BURST) do |socket|
            Bench::Measure.time { calls.times { peer.call(socket, file, length) } }.cpu / calls
          end
        end
      end
    end

    ratios = cpu.to_h { |name, own| [name, Bench::Statistics.ratio(cpu.fetch(OURS), own)] }
    best = cpu.except(OURS, PRIMITIVE).min_by { |_, own| Bench::Statistics.median(own) }.first
    report.check("CPU per call against #{best}, #{Bench.size(length)}", ratios.fetch(best), at_most: 1.0)
    cpu.each do |name, own|
      rows << [Bench.size(length), name, format("%.2f", Bench::Statistics.median(own) * 1e6), ratios.fetch(name)]
    end
  end
  report.table("CPU per call (median), and copy_to_socket against it (median of the rounds' ratios)",
               ["size", "peer", "CPU µs", "copy_to_socket / peer"], rows)
end
