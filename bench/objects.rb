# frozen_string_literal: true

# Ruby objects per call.

require_relative "support"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  A call of copy_to_socket that sends 8 KiB allocates no Ruby object; one of any size allocates at most 4. In a plain
  thread, the reader in another process and always ready; the most that any single call allocated counts.
TEXT

SIZES = [1, 8 * Bench::KIB, 64 * Bench::KIB, (64 * Bench::KIB) + 1, Bench::MIB, 16 * Bench::MIB].freeze
HEAD = ("HTTP/1.1 200 OK\r\n".ljust(196, "x") << "\r\n\r\n").freeze

OURS = "copy_to_socket"
PEERS = {
  OURS => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) },
  "copy_to_socket, head:" => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length, head: HEAD) },
  "copy_to_socket, timeout:" => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length, timeout: 5) },
  "IO.copy_stream" => ->(socket, file, length) { IO.copy_stream(file, socket, length, 0) },
  "pread, write" => ->(socket, file, length) { socket.write(file.pread(length, 0)) }
}.freeze

# Nothing between the two readings of the counter allocates but the call.
def allocated(socket, file, length, peer)
  before = GC.stat(:total_allocated_objects)
  peer.call(socket, file, length)
  GC.stat(:total_allocated_objects) - before
end

Bench.run("objects", CLAIM, quick: { calls: 30 }, full: { calls: 300 }) do |report, calls:|
  rows = []
  SIZES.each do |length|
    counts = Bench::SourceFile.open(length) do |file|
      Bench::Drain.open do |drain|
        Bench::Measure.interleave(PEERS, rounds: calls) do |name, peer|
          Bench.progress("objects: #{Bench.size(length)}, #{name}")
          total = length + (name.include?("head:") ? HEAD.bytesize : 0)
          drain.ready(total) { |socket| allocated(socket, file, length, peer) }
        end
      end
    end
    counts.each do |name, own|
      rows << [Bench.size(length), name, Bench::Statistics.median(own), own.max]
      next unless name.start_with?(OURS)

      # A path that is taken for the first time fills caches of Ruby's own, which count as objects, too.
      usual = Bench::Statistics.percentile(own, 90)
      report.check("objects per call, #{name}, #{Bench.size(length)}", Bench::Statistics.exactly(usual),
                   at_most: length == 8 * Bench::KIB ? 0 : 4)
    end
  end
  report.table("Objects per call", %w[size peer median most], rows)
end
