# frozen_string_literal: true

# Whole servers, each one process: what sending by copy_to_socket makes of them.

require "tmpdir"
require_relative "support"
require_relative "support/server_peers"
require_relative "support/web_server"
require_relative "support/wrk"

CLAIM = <<~TEXT.tr("\n", " ").strip
  One process that serves files over HTTP/1.1, asked by wrk over 8 kept-alive connections (4 for the ranges): Puma and
  Falcon with Hyperion::Http::Sendfile::Files instead of Rack::Files answer 1.5 times as many requests for 8 KiB and 3
  times as many for a range of 8 MiB; a whole MiB no fewer on Puma, which sends that by IO.copy_stream already, and 1.8
  times as many on Falcon. The example server, and either of them, comes to 0.8 of nginx with one worker at 1 MiB, and to
  0.9 with the range. Middleware takes over the bodies of Rack::Files; the protocol is Hyperion::Http::Sendfile::Falcon,
  without which Falcon gets a file in pieces. wrk runs on the same machine, so where it is the slower end the servers come out alike: CPU per
  response tells them apart.
TEXT

# A request and how often at once.
Request = Struct.new(:file, :range, :connections) do
  def fields
    range ? ["Range: bytes=#{range.min}-#{range.max}"] : []
  end
end

LENGTHS = { "8k" => 8 * Bench::KIB, "100k" => 100 * Bench::KIB, "1m" => Bench::MIB, "16m" => 16 * Bench::MIB }.freeze
REQUESTS = {
  "8 KiB" => Request.new("8k", nil, 8),
  "100 KiB" => Request.new("100k", nil, 8),
  "1 MiB" => Request.new("1m", nil, 8),
  "206, 8 MiB" => Request.new("16m", Bench::MIB...(9 * Bench::MIB), 4)
}.freeze

EXAMPLE = "example server"
NGINX = "nginx, one worker"
PUMA = "Puma, Rack::Files"
PUMA_FILES = "Puma, Files"
PUMA_MIDDLEWARE = "Puma, Rack::Files, Middleware"
FALCON = "Falcon, Rack::Files"
FALCON_FILES = "Falcon, Files, protocol"
FALCON_PLAIN = "Falcon, Files"
ITSI = "itsi, Rack::Files"

Peers = Bench::ServerPeers
PEERS = {
  EXAMPLE => ->(dir, port, **) { Peers.example(dir, port) },
  PUMA => ->(dir, port, **) { Peers.puma(dir, port, "Rack::Files") },
  PUMA_FILES => ->(dir, port, **) { Peers.puma(dir, port, "Files") },
  PUMA_MIDDLEWARE => ->(dir, port, **) { Peers.puma(dir, port, "Middleware") },
  FALCON => ->(dir, port, **) { Peers.falcon(dir, port, "Rack::Files", "Async::HTTP::Protocol::HTTP") },
  FALCON_FILES => ->(dir, port, **) { Peers.falcon(dir, port, "Files", "Hyperion::Http::Sendfile::Falcon") },
  FALCON_PLAIN => ->(dir, port, **) { Peers.falcon(dir, port, "Files", "Async::HTTP::Protocol::HTTP") },
  ITSI => ->(dir, port, install:) { Peers.itsi(dir, port, "Rack::Files", install: install) },
  NGINX => ->(dir, port, **) { Peers.nginx(dir, port) }
}.freeze

# Requests per second of one against those of another, at least.
AGAINST_NGINX = { "1 MiB" => 0.8, "206, 8 MiB" => 0.9 }.freeze
CLAIMS = {
  [EXAMPLE, NGINX] => AGAINST_NGINX,
  [PUMA_FILES, PUMA] => { "8 KiB" => 1.5, "1 MiB" => 1.0, "206, 8 MiB" => 3 },
  [FALCON_FILES, FALCON] => { "8 KiB" => 1.5, "1 MiB" => 1.8, "206, 8 MiB" => 3.5 },
  [PUMA_FILES, NGINX] => AGAINST_NGINX,
  [FALCON_FILES, NGINX] => AGAINST_NGINX
}.freeze

# Of one run of wrk: requests per second, and CPU seconds of the server per response.
Load = Struct.new(:rate, :cpu)

# Yields a directory with the files.
def files
  Dir.mktmpdir("bench", Bench::SourceFile.directory) do |dir|
    www = File.join(dir, "www")
    Dir.mkdir(www)
    LENGTHS.each { |name, length| File.binwrite(File.join(www, name), Random.bytes(length)) }
    yield File.realpath(www)
  end
end

# Yields those of the servers that could be started, by name.
def servers(names, dir, report, install)
  running = {}
  names.each do |name|
    running[name] = Bench::WebServer.new(name) { |port| PEERS.fetch(name).call(dir, port, install: install) }
  rescue Bench::WebServer::NotStarted => e
    report.skip(name, e.message)
  end
  yield ready(running, report)
ensure
  running.each_value(&:stop)
end

def ready(running, report)
  running.select do |name, server|
    Bench.progress("servers: starting #{name}")
    server.ready
    true
  rescue Bench::WebServer::NotStarted => e
    report.skip(name, e.message)
    false
  end
end

# Raises unless the answer is what was asked for.
def ask(http, dir, request)
  answer = http.get("/#{request.file}", request.fields.to_h { |field| field.split(": ") })
  expected = File.binread(File.join(dir, request.file))
  expected = expected[request.range] if request.range
  return if answer.code == (request.range ? "206" : "200") && answer.body == expected

  raise "bench: a wrong answer: #{answer.code}, #{answer.body.bytesize} of #{expected.bytesize} bytes"
end

def load(server, request, seconds)
  cpu = server.cpu
  result = Bench::Wrk.run("http://127.0.0.1:#{server.port}/#{request.file}", connections: request.connections,
                                                                             seconds: seconds, fields: request.fields)
  Load.new(result.rate, (server.cpu - cpu) / result.requests)
end

# Per response, on a connection that is open already; every answer is looked at.
def calls(server, dir, request, count)
  server.connect do |http|
    ask(http, dir, request)
    counted = server.count_calls { count.times { ask(http, dir, request) } } if count.positive?
    counted ? counted.to_a.map { |calls| calls.fdiv(count) } : [nil, nil]
  end
end

def rows(title, loads, calls)
  loads.map do |name, own|
    [title, name, Bench::Statistics.estimate(own.map(&:rate)), Bench::Statistics.median(own.map(&:cpu)) * 1e6,
     *calls.fetch(name)]
  end
end

def check(report, title, loads)
  CLAIMS.each do |(ours, other), claims|
    next unless claims.key?(title) && loads.key?(ours) && loads.key?(other)

    ratio = Bench::Statistics.ratio(*[ours, other].map { |name| loads.fetch(name).map(&:rate) })
    report.check("#{ours} against #{other}, #{title}", ratio, at_least: claims.fetch(title))
  end
end

SETTINGS = {
  quick: { rounds: 3, seconds: 0.4, traced: 0, requests: ["206, 8 MiB"], peers: [EXAMPLE, PUMA, PUMA_FILES, NGINX] },
  full: { rounds: 7, seconds: 1, traced: 50, requests: REQUESTS.keys, peers: PEERS.keys }
}.freeze

Bench.run("servers", CLAIM, **SETTINGS) do |report, rounds:, seconds:, traced:, requests:, peers:|
  next report.skip("everything", "wrk is not installed") unless Bench::Wrk.installed?

  found = []
  charts = {}
  files do |dir|
    servers(peers, dir, report, traced.positive?) do |running|
      REQUESTS.slice(*requests).each do |title, request|
        calls = running.transform_values { |server| calls(server, dir, request, traced) }
        loads = Bench::Measure.interleave(running, rounds: rounds) do |name, server|
          Bench.progress("servers: #{title}, #{name}")
          load(server, request, seconds)
        end
        check(report, title, loads)
        found.concat(rows(title, loads, calls))
      end
    end
  end
  if traced.positive? && found.any? { |row| row.last.nil? }
    report.skip("system calls", "strace is not installed, or may not trace here")
  end
  report.table("Requests per second (95 % confidence interval); the server's CPU time, and its read and write system " \
               "calls, per response", ["response", "server", "requests/s", "CPU µs", "reads", "writes"], found)
  found.group_by { |row| row[1] }.each { |name, own| charts[name] = own.to_h { |row| [row[0], row[2]] } }
  report.chart("Requests per second", over: "response", unit: "requests/s", series: charts, log: true)
end
