# frozen_string_literal: true

# A thousand slow clients and a fast one on one event loop.

require_relative "support"
require_relative "support/crowd"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Under Async, in one thread, 1,000 clients that take 80 KB a second and one that takes all it can get are served at
  once, every byte right, at less than 20 KiB of Ruby's memory for each connection that waits: socket, task, fiber and
  transfer. Memory of objects is what ObjectSpace.memsize_of_all says after a collection, with every slow transfer
  begun and waiting, less what it said before the first connection; the resident set has the fibers' stacks, too. A
  heartbeat fiber sleeps 1 ms at a time and notes how late it wakes. Server, slow clients and fast client are processes
  of their own, new for each run.
TEXT

PEERS = {
  "copy_to_socket" => ->(file, socket, length) { S.copy_to_socket(socket, file, 0, length) },
  "IO.copy_stream" => ->(file, socket, length) { IO.copy_stream(file, socket, length, 0) }
}.freeze
# A response to the fast client.
LENGTH = 16 * Bench::MIB

def estimate(outcomes, &figure)
  Bench::Statistics.estimate(outcomes.map(&figure))
end

SETTINGS = {
  quick: { rounds: 1, warm_up: false, slow: 100, length: 128 * Bench::KIB },
  full: { rounds: 5, slow: 1000, length: 512 * Bench::KIB }
}.freeze

Bench.run("fibers", CLAIM, **SETTINGS) do |report, rounds:, slow:, length:, warm_up: true|
  outcomes = Bench::SourceFile.open(LENGTH) do |file|
    crowd = Bench::Crowd.new(file.pread(LENGTH, 0), slow: slow, length: length)
    Bench::Measure.interleave(PEERS, rounds: rounds, warm_up: warm_up) do |name, peer|
      Bench.progress("fibers: #{slow} slow clients and a fast one, #{name}")
      crowd.run { |socket, bytes| peer.call(file, socket, bytes) }
    end
  end

  ours = outcomes.fetch("copy_to_socket")
  report.check("clients served exactly", Bench::Statistics.exactly(ours.map(&:exact).min), at_least: slow + 1)
  report.check("objects per connection", estimate(ours) { |own| own.objects / Bench::KIB }, at_most: 20, unit: "KiB")
  report.check("resident per connection", estimate(ours) { |own| own.resident / Bench::KIB }, at_most: 20, unit: "KiB")
  rows = outcomes.map do |name, own|
    [name, own.map(&:exact).min, estimate(own) { |outcome| outcome.objects / Bench::KIB },
     estimate(own) { |outcome| outcome.resident / Bench::KIB }, estimate(own) { |outcome| outcome.rate / 1e6 },
     *[50, 99, 100].map do |percentage|
       estimate(own) { |outcome| Bench::Statistics.percentile(outcome.heartbeat.late, percentage) * 1000 }
     end, estimate(own) { |outcome| outcome.heartbeat.cpu.max * 1000 }]
  end
  report.table("#{slow} slow clients and a fast one",
               ["transfer", "served exactly", "objects KiB each", "resident KiB each", "fast client MB/s",
                "late, median ms", "late, 99th percentile ms", "late, longest ms", "most CPU between beats ms"], rows)
  columns = { "objects, KiB each" => 2, "resident, KiB each" => 3 }
  memory = rows.to_h { |row| [row.first, columns.transform_values { |column| row[column] }] }
  lateness = rows.to_h { |row| [row.first, { "99th percentile" => row[6], "longest" => row[7], "most CPU" => row[8] }] }
  report.chart("Memory for each connection", over: "", unit: "KiB", limit: 20, series: memory)
  report.chart("Lateness of another fiber", over: "", unit: "ms", series: lateness)
end
