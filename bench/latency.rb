# frozen_string_literal: true

# Time to the last byte of a response on a kept-alive connection.

require_relative "support"
require_relative "support/client"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  On a kept-alive connection the last byte of a response is not held back, at any size, with and without TCP_NODELAY,
  with and without head: no step of 40 ms (Nagle's algorithm against a delayed acknowledgement) or 200 ms (a tail that
  waits for more). The client, in another process, sends one byte and takes the time until the last byte of the response
  is there. Of the requests of a row, over several connections, one in a hundred may have taken 30 ms or more: a step
  comes again, a hiccup of the machine doesn't.
TEXT

# Most of them end in a short segment after full ones, which Nagle's algorithm would hold.
SIZES = [1, 1500, 8 * Bench::KIB, 60_000, 64 * Bench::KIB, (64 * Bench::KIB) + 1, 131_200, 256 * Bench::KIB, 1_000_003,
         Bench::MIB].freeze
HEAD = ("HTTP/1.1 200 OK\r\n".ljust(196, "x") << "\r\n\r\n").freeze
STEP = 0.03

OURS = "copy_to_socket"
# Each with the bytes that go before the body.
PEERS = {
  OURS => [0, ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) }],
  "#{OURS}, head:" => [HEAD.bytesize, lambda do |socket, file, length|
    S.copy_to_socket(socket, file, 0, length, head: HEAD)
  end],
  "write of the head, IO.copy_stream" => [HEAD.bytesize, lambda do |socket, file, length|
    socket.write(HEAD)
    IO.copy_stream(file, socket, length, 0)
  end]
}.freeze

# Seconds of each request, over several connections.
def latencies(name, length, nodelay:, connections:, requests:)
  before, answer = PEERS.fetch(name)
  Bench::SourceFile.open(length) do |file|
    Array.new(connections) do
      Bench::Client.measure(requests: requests, response: before + length, nodelay: nodelay) do |socket|
        answer.call(socket, file, length)
      end
    end.flatten
  end
end

# One request in so many may be the machine's fault.
SETTINGS = {
  quick: { connections: 2, requests: 15, hiccups: 5 },
  full: { connections: 5, requests: 60, hiccups: 100 }
}.freeze

Bench.run("latency", CLAIM, **SETTINGS) do |report, **settings|
  rows = SIZES.product([true, false], PEERS.keys).map do |length, nodelay, name|
    Bench.progress("latency: #{Bench.size(length)}, #{name}")
    seconds = latencies(name, length, nodelay: nodelay, **settings.slice(:connections, :requests))
    steps = seconds.count { |value| value >= STEP }
    nagle = nodelay ? "TCP_NODELAY" : "Nagle"
    if name.start_with?(OURS)
      report.check("responses held back, #{name}, #{Bench.size(length)}, #{nagle}", Bench::Statistics.exactly(steps),
                   at_most: [seconds.size / settings.fetch(:hiccups), 1].max)
    end
    [Bench.size(length), name, nagle, *[50, 99, 100].map do |percentage|
      format("%.3f", Bench::Statistics.percentile(seconds, percentage) * 1000)
    end, steps]
  end
  report.table("Milliseconds to the last byte",
               ["size", "peer", "socket", "median", "99th percentile", "worst", "of 30 ms or more"], rows)
end
