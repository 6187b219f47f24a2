# frozen_string_literal: true

# A head and a small file, as a server sends them: in one call, against two writes; and the time to the last byte of
# responses of any size.

require_relative "support"
require_relative "support/c_loop"
require_relative "support/client"
require_relative "support/kept_alive"
require_relative "support/veth"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  A head and 8 KiB by one call of copy_to_socket cost at most 0.65 times the CPU of write and IO.copy_stream, and leave
  as one segment where two went out. On a kept-alive connection the last byte of a response of any size, by any route,
  is there within 1.2 times what IO.copy_stream takes, and never held back for 40 ms (Nagle's algorithm against a
  delayed acknowledgement) or 200 ms (a tail that waits for more).
TEXT

KIB = Bench::KIB
SIZES = [1, 4, 8, 16, 32, 64].map { |kib| kib * KIB }.freeze
# Most of these end in a short segment after full ones, which Nagle's algorithm would hold.
ANY_SIZES = [1, 1500, 8 * KIB, 60_000, 64 * KIB, (64 * KIB) + 1, 131_200, 256 * KIB, 1_000_003, Bench::MIB].freeze
HEAD = ("HTTP/1.1 200 OK\r\n".ljust(196, "x") << "\r\n\r\n").freeze
BUFFER = String.new(capacity: SIZES.max)

OURS = "copy_to_socket, head:"
THEIRS = "write, IO.copy_stream"
WITH_HEAD = {
  OURS => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length, head: HEAD) },
  THEIRS => lambda do |socket, file, length|
    socket.write(HEAD)
    IO.copy_stream(file, socket, length, 0)
  end,
  "write, pread and write" => lambda do |socket, file, length|
    socket.write(HEAD)
    socket.write(file.pread(length, 0, BUFFER))
  end,
  "pread, write of both" => ->(socket, file, length) { socket.write(HEAD, file.pread(length, 0, BUFFER)) }
}.freeze

# A destination that is no IO, as a server's own stream object is: only its write is used.
Wrapped = Struct.new(:socket) do
  def write(data)
    socket.write(data)
  end
end

# Each route, and IO.copy_stream to the same destination.
ROUTES = {
  "copy_to_socket" => ->(socket, file, length) { S.copy_to_socket(socket, file, 0, length) },
  "copy_to_socket, splice" => lambda do |socket, file, length|
    Bench.with_splice { S.copy_to_socket(socket, file, 0, length) }
  end,
  "IO.copy_stream" => ->(socket, file, length) { IO.copy_stream(file, socket, length, 0) },
  "copy_to_socket, object with write" => lambda do |socket, file, length|
    S.copy_to_socket(Wrapped.new(socket), file, 0, length)
  end,
  "IO.copy_stream, object with write" => lambda do |socket, file, length|
    IO.copy_stream(file, Wrapped.new(socket), length, 0)
  end
}.freeze
AGAINST = {
  "copy_to_socket" => "IO.copy_stream", "copy_to_socket, splice" => "IO.copy_stream",
  "copy_to_socket, object with write" => "IO.copy_stream, object with write"
}.freeze

# Where a response goes: over which link, and whether with TCP_NODELAY.
Place = Struct.new(:name, :link, :nodelay) do
  def to_s
    "#{name}, #{nodelay ? "TCP_NODELAY" : "Nagle"}"
  end
end

# Yields a file of that length and { name => [peer, connections] }, each having its own, which the block before made.
def prepare(length, peers, connect)
  Bench::SourceFile.open(length) do |file|
    connected = {}
    peers.each { |name, peer| connected[name] = [peer, connect.call] }
    yield file, connected
  ensure
    connected.each_value { |_, connections| connections.close }
  end
end

CONNECTIONS = 16
# Per response: CPU seconds, and segments.
Cost = Struct.new(:cpu, :segments)

# { name => costs }
def costs(length, place, rounds)
  connect = -> { Bench::KeptAlive.new(CONNECTIONS, link: place.link, nodelay: place.nodelay) }
  prepare(length, WITH_HEAD, connect) do |file, peers|
    Bench::Measure.interleave(peers, rounds: rounds) do |name, (peer, connections)|
      Bench.progress("small: #{place}, #{Bench.size(length)}, CPU, #{name}")
      segments = connections.segments
      sample = connections.respond(HEAD.bytesize + length) do |sockets|
        Bench::Measure.time { sockets.each { |socket| peer.call(socket, file, length) } }
      end
      Cost.new(sample.cpu / CONNECTIONS, (connections.segments - segments).to_f / CONNECTIONS)
    end
  end
end

STEP = 0.03
# What the client saw of one peer, by round.
Seen = Struct.new(:rounds) do
  def times
    rounds.flat_map(&:times)
  end

  def milliseconds
    [50, 99].map { |percentage| Bench::Statistics.percentile(times, percentage) * 1000 }
  end

  def held_back
    times.count { |time| time >= STEP }
  end

  def per_second
    Bench::Statistics.estimate(rounds.map { |seen| seen.times.size / seen.wall })
  end

  # Of the medians of the rounds.
  def against(other)
    Bench::Statistics.ratio(*[self, other].map do |seen|
      seen.rounds.map { |round| Bench::Statistics.median(round.times) }
    end)
  end
end

# Of each round: so many responses, or as many as there are in so many seconds. One in so many may be held back by the
# machine: a step comes again, a hiccup doesn't.
Measured = Struct.new(:rounds, :responses, :seconds, :hiccups, keyword_init: true)

# { name => Seen }
def seen(peers, length, head, place, connections, measured)
  connect = lambda do
    Bench::Client.new(head + length, connections: connections, link: place.link, nodelay: place.nodelay)
  end
  prepare(length, peers, connect) do |file, ways|
    rounds = Bench::Measure.interleave(ways, rounds: measured.rounds) do |name, (peer, client)|
      Bench.progress("small: #{place}, #{Bench.size(length)}, #{connections} connections, #{name}")
      client.measure(measured.responses, measured.seconds) { |socket| peer.call(socket, file, length) }
    end
    rounds.transform_values { |own| Seen.new(own) }
  end
end

# The last byte of responses by the first peer: not much later than by the second at any size, and never held back.
def check_last_byte(report, place, name, other, seen, hiccups)
  seen.each do |length, all|
    report.check("time to the last byte, #{name} against #{other}, #{place}, #{Bench.size(length)}",
                 all.fetch(name).against(all.fetch(other)), at_most: 1.2)
  end
  times = seen.values.flat_map { |all| all.fetch(name).times }
  report.check("of #{times.size} responses held back, #{name}, #{place}",
               Bench::Statistics.exactly(times.count { |time| time >= STEP }), at_most: [times.size / hiccups, 1].max)
end

# The CPU of a response with a head, and its segments.
def compare_costs(report, sizes, place, rounds)
  all = sizes.to_h { |length| [length, costs(length, place, rounds)] }
  ratios = Hash.new { |hash, name| hash[name] = {} }
  rows = all.flat_map do |length, costs|
    costs.map do |name, own|
      ratios[name][length] = Bench::Statistics.ratio(own.map(&:cpu), costs.fetch(THEIRS).map(&:cpu))
      [Bench.size(length), name, Bench::Statistics.median(own.map(&:cpu)) * 1e6, ratios[name][length],
       Bench::Statistics.median(own.map(&:segments))]
    end
  end
  eight = all.fetch(8 * KIB)
  report.check("CPU against #{THEIRS}, 8 KiB", ratios.fetch(OURS).fetch(8 * KIB), at_most: 0.65)
  segments = eight.fetch(OURS).map(&:segments)
  report.check("segments of a response, 8 KiB", Bench::Statistics.exactly(segments.max), at_most: 1)
  report.chart("CPU of a response with a head, #{place}",
               over: "size of the body", unit: "times #{THEIRS}", series: ratios)
  report.table("CPU of a response with a head, #{place} (median, and the median of the rounds' ratios)",
               ["body", "peer", "CPU µs", "against #{THEIRS}", "segments"], rows)
end

# Requests per second on several connections, time to the last byte on one.
def compare_with_head(report, sizes, place, many:, one:)
  busy, alone = { 8 => many, 1 => one }.map do |connections, measured|
    sizes.to_h { |length| [length, seen(WITH_HEAD, length, HEAD.bytesize, place, connections, measured)] }
  end
  check_last_byte(report, place, OURS, THEIRS, alone, one.hiccups)
  sizes.product(WITH_HEAD.keys).map do |length, name|
    last_byte = alone.fetch(length).fetch(name)
    [place.to_s, Bench.size(length), name, busy.fetch(length).fetch(name).per_second, *last_byte.milliseconds,
     last_byte.held_back]
  end
end

# Of rows that begin with place, size and peer: those of 8 KiB.
def picture(report, rows)
  figures = { "Requests per second" => ["8 kept-alive connections", "requests/s"],
              "Time to the last byte, median" => ["1 kept-alive connection", "ms"] }
  figures.each.with_index(3) do |(title, (over, unit)), column|
    series = WITH_HEAD.keys.to_h do |name|
      own = rows.select { |row| row[1..2] == ["8 KiB", name] }
      [name, own.to_h { |row| [row.first, row[column]] }]
    end
    report.chart("#{title}: head and 8 KiB", over: over, unit: "#{unit} (logarithmic)", series: series, log: true)
  end
end

# Time to the last byte without a head, by every route.
def compare_routes(report, sizes, place, one, against)
  all = sizes.to_h do |length|
    routes = length > S::SPLICE_THRESHOLD ? ROUTES : ROUTES.except("copy_to_socket, splice")
    [length, seen(routes, length, 0, place, 1, one)]
  end
  against.each do |name, other|
    check_last_byte(report, place, name, other, all.select { |_, own| own.key?(name) }, one.hiccups)
  end
  all.flat_map do |length, routes|
    routes.map { |name, own| [place, Bench.size(length), name, *own.milliseconds, own.held_back] }
  end
end

# Packets over a link that takes none larger than its MTU, as the link counts them, acknowledgements and all.
def compare_packets(report, sizes, veth, responses)
  veth.segment_in_software
  connect = -> { Bench::KeptAlive.new(1, link: veth) }
  packets = sizes.to_h do |length|
    prepare(length, WITH_HEAD, connect) do |file, peers|
      [length, peers.to_h do |name, (peer, connections)|
        answer = lambda do |_|
          connections.respond(HEAD.bytesize + length) { |sockets| peer.call(sockets.first, file, length) }
        end
        answer.call(0) # the first finds the link without addresses
        before = veth.packets
        responses.times(&answer)
        [name, (veth.packets - before).to_f / responses]
      end]
    end
  end
  report.check("packets of a response, 1 KiB, MTU #{Bench::Veth::MTU}",
               Bench::Statistics.exactly(packets.fetch(KIB).fetch(OURS)), at_most: 1.1)
  report.table("Packets of a response, head and body, over a link with an MTU of #{Bench::Veth::MTU}, TCP_NODELAY",
               ["body", *WITH_HEAD.keys], packets.map { |length, own| [Bench.size(length), *own.values] })
end

FULL = {
  sizes: SIZES, any_sizes: ANY_SIZES, links: %w[loopback veth], rounds: 400, packets: 200,
  many: Measured.new(rounds: 6, responses: 800, seconds: 0.08, hiccups: 100),
  one: Measured.new(rounds: 6, responses: 120, seconds: 0.08, hiccups: 100), against: AGAINST
}.freeze
# An own write's time is of Ruby, and takes more rounds than there are here to tell.
QUICK = {
  sizes: [8 * KIB], any_sizes: [60_000, Bench::MIB], links: %w[loopback], rounds: 40, packets: 20,
  many: Measured.new(rounds: 5, responses: 200, seconds: 0.05, hiccups: 5),
  one: Measured.new(rounds: 5, responses: 40, seconds: 0.05, hiccups: 5),
  against: AGAINST.except("copy_to_socket, object with write")
}.freeze
LAST_BYTE = ["median ms", "99th percentile ms", "of 30 ms or more"].freeze

Bench.run("small", CLAIM, quick: QUICK, full: FULL) do |report, links:, sizes:, any_sizes:, rounds:, packets:, against:,
                                                        **client|
  Bench.pin(0)
  Bench::Veth.open do |veth, why|
    report.skip("a link with an MTU of #{Bench::Veth::MTU}", why) unless veth
    places = { "loopback" => Bench::Loopback, "veth" => veth }.compact.slice(*links).flat_map do |name, link|
      [true, false].map { |nodelay| Place.new(name, link, nodelay) }
    end

    compare_costs(report, sizes, places.first, rounds)
    rows = places.flat_map { |place| compare_with_head(report, sizes, place, **client) }
    picture(report, rows)
    report.table("Head and body: requests per second on 8 connections, time to the last byte on 1",
                 ["link, socket", "body", "peer", "requests/s", *LAST_BYTE], rows)
    report.table("Body alone: time to the last byte", ["link, socket", "body", "peer", *LAST_BYTE],
                 places.flat_map { |place| compare_routes(report, any_sizes, place, client.fetch(:one), against) })
    compare_packets(report, [KIB, *sizes].uniq, veth, packets) if veth
  end
end
