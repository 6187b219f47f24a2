# frozen_string_literal: true

# Files by HTTP/2 on async-http: the protocol HTTP2 against async-http's own.

require "English"
require "rbconfig"
require "tmpdir"
require_relative "support"
require_relative "support/frames"
require_relative "support/web_server"

CLAIM = <<~TEXT.tr("\n", " ").strip
  One process that serves files by HTTP/2 to h2load or nghttp: with Hyperion::Http::Sendfile::HTTP2 it takes at most a
  third of the CPU that it takes by async-http's own protocol where the client's windows are large and its frames have 16
  KiB, with one stream and with 100 on a connection; at most half of it over TLS, in userspace; and 0.6 of it with
  nghttp's own windows, of which the gem's accounting takes most. A response of 64 MiB makes no more than 1,024 objects
  more than one of 1 KiB: the timers of its waits for a full socket. A response of 1 KiB beside three of 64 MiB takes 5 ms at most.
TEXT

HERE = File.expand_path("http2", __dir__)
LIB = File.expand_path("../lib", __dir__)

# A client's command line, and what it asks for.
Client = Struct.new(:file, :times, :command) do
  def bytes
    LENGTHS.fetch(file) * times
  end

  def run(url)
    said = IO.popen([*command, "#{url}/#{file}"], err: %i[child out], &:read)
    return if $CHILD_STATUS.success? && !said.match?(/[1-9]\d* (?:failed|errored|timeout)/)

    raise "bench: #{command.first} failed: #{said}"
  end
end

LENGTHS = { "0" => 0, "1k" => Bench::KIB, "1m" => Bench::MIB, "8m" => 8 * Bench::MIB, "64m" => 64 * Bench::MIB }.freeze
LARGE = %w[-w30 -W30].freeze
CLIENTS = {
  "one stream" => Client.new("64m", 2, %w[h2load -n2 -c1 -m1] + LARGE),
  "100 streams" => Client.new("8m", 100, %w[h2load -n100 -c1 -m100] + LARGE),
  "windows of 1 MiB" => Client.new("64m", 1, %w[nghttp -ny -w20 -W20]),
  "nghttp's windows" => Client.new("64m", 1, %w[nghttp -ny])
}.freeze
# The CPU against async-http's own, at most.
AGAINST_STOCK = {
  ["one stream", "http"] => 1 / 3.0, ["100 streams", "http"] => 1 / 3.0, ["windows of 1 MiB", "http"] => 1 / 3.0,
  ["nghttp's windows", "http"] => 1 / 1.7, ["one stream", "https"] => 0.5, ["100 streams", "https"] => 0.5,
  ["windows of 1 MiB", "https"] => 0.5, ["nghttp's windows", "https"] => nil
}.freeze

OURS = "HTTP2"
STOCK = "async-http"
PROTOCOLS = { OURS => "Hyperion::Http::Sendfile::HTTP2", STOCK => "Async::HTTP::Protocol::HTTP2" }.freeze

def files
  Dir.mktmpdir("bench", Bench::SourceFile.directory) do |dir|
    LENGTHS.each { |name, length| File.binwrite(File.join(dir, name), Random.bytes(length)) }
    yield File.realpath(dir)
  end
end

# Yields the running servers, by protocol and scheme.
def servers(dir, schemes)
  running = {}
  PROTOCOLS.to_a.product(schemes) do |(name, protocol), scheme|
    running[[name, scheme]] = Bench::WebServer.new("#{name}, #{scheme}") do |port|
      [{ "CONSOLE_LEVEL" => "error" }, RbConfig.ruby, "-I#{LIB}", File.join(HERE, "server.rb"), protocol, scheme,
       port.to_s, dir]
    end
  end
  running.each_value(&:ready)
  yield running
ensure
  running.each_value(&:stop)
end

def url(server, scheme)
  "#{scheme}://127.0.0.1:#{server.port}"
end

# CPU seconds per GB, by server, a figure for each round.
def loads(running, scheme, client, rounds)
  peers = running.select { |(_, own), _| own == scheme }.transform_keys(&:first)
  Bench::Measure.interleave(peers, **rounds) do |name, server|
    Bench.progress("http2: #{client.command.first}, #{scheme}, #{name}")
    before = server.cpu
    client.run(url(server, scheme))
    (server.cpu - before) / client.bytes * 1e9
  end
end

# The least that one of the responses took: one for which the socket had room, too.
def objects_of(server, file, count)
  client = Bench::Frames.new(server.port)
  3.times { client.get("/#{file}") }
  total = -> { client.ask("/objects").to_i }
  total.call
  idle = -total.call + total.call
  Array.new(count) do
    before = total.call
    client.get("/#{file}")
    total.call - before - idle
  end.min
ensure
  client&.close
end

# Milliseconds that 1 KiB takes while three large responses are under way, for as long as they are.
def latencies(server)
  client = Bench::Frames.new(server.port)
  client.get("/1k")
  large = Array.new(3) { client.request("/64m") }
  client.wait_for_data(*large)
  times = []
  loop do
    times << (Bench::Measure.time { client.get("/1k") }.wall * 1e3)
    break if large.any? { |id| client.received[id] == LENGTHS.fetch("64m") }
  end
  client.wait(*large.reject { |id| client.received[id] == LENGTHS.fetch("64m") })
  times
ensure
  client&.close
end

def compare_cpu(report, running, schemes, rounds, names)
  rows = []
  schemes.product(names) do |scheme, name|
    found = loads(running, scheme, CLIENTS.fetch(name), rounds)
    ratio = Bench::Statistics.ratio(found.fetch(OURS), found.fetch(STOCK))
    limit = AGAINST_STOCK.fetch([name, scheme])
    report.check("CPU against #{STOCK}, #{scheme}, #{name}", ratio, at_most: limit) if limit
    rows << [scheme, name, *[OURS, STOCK].map { |own| Bench::Statistics.estimate(found.fetch(own)) }, ratio]
  end
  report.table("CPU seconds per GB of the server", ["scheme", "client", OURS, STOCK, "ratio"], rows)
  charted = rows.group_by(&:first).flat_map do |scheme, own|
    [OURS, STOCK].each_with_index.map do |name, index|
      ["#{name}, #{scheme}", own.to_h { |row| [row[1], row[2 + index]] }]
    end
  end
  report.chart("CPU seconds per GB", over: "client", unit: "CPU s/GB", series: charted.to_h)
end

def compare_latency(report, running, rounds)
  peers = PROTOCOLS.to_h { |name, _| [name, running.fetch([name, "http"])] }
  found = Bench::Measure.interleave(peers, **rounds) do |name, server|
    Bench.progress("http2: 1 KiB beside three of 64 MiB, #{name}")
    latencies(server)
  end
  found = found.transform_values { |rounds_of_times| Bench::Statistics.estimate(rounds_of_times.flatten) }
  report.check("1 KiB beside three of 64 MiB", found.fetch(OURS), at_most: 5, unit: "ms")
  report.table("1 KiB beside three responses of 64 MiB, ms", %w[protocol median], found.to_a)
end

def count_objects(report, running, count, most)
  server = running.fetch([OURS, "http"])
  found = %w[0 1k 1m 64m].to_h { |file| [file, objects_of(server, file, file == "64m" ? [count / 5, 3].max : count)] }
  more = Bench::Statistics.exactly(found.fetch("64m") - found.values_at("0", "1k").min)
  report.check("objects of 64 MiB, beyond those of 1 KiB or of nothing", more, at_most: most)
  report.table("Objects per response, #{OURS}", %w[bytes objects], found.map { |file, own| [LENGTHS.fetch(file), own] })
end

# Every wait for a full socket costs the timer that Async makes for it, and what io-event's heap needs to sort it in.
SETTINGS = {
  quick: { rounds: 1, warm_up: false, schemes: %w[http], clients: ["one stream", "nghttp's windows"], count: 5,
           objects: 1024 },
  full: { rounds: 9, schemes: %w[http https], clients: CLIENTS.keys, count: 50, objects: 1024 }
}.freeze

Bench.run("http2", CLAIM, **SETTINGS) do |report, rounds:, schemes:, clients:, count:, objects:, warm_up: true|
  rounds = { rounds: rounds, warm_up: warm_up }
  files do |dir|
    servers(dir, schemes) do |running|
      missing = %w[h2load nghttp].reject do |command|
        ENV.fetch("PATH", "").split(File::PATH_SEPARATOR).any? { |path| File.executable?(File.join(path, command)) }
      end
      if missing.empty?
        compare_cpu(report, running, schemes, rounds, clients)
      else
        report.skip("CPU", "#{missing.join(" and ")} are not installed")
      end
      compare_latency(report, running, rounds)
      count_objects(report, running, count, objects)
    end
  end
end
