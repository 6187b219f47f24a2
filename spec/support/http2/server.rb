# frozen_string_literal: true

# Runs in the server's process: a folder by HTTP/2, and what the process made of it.
#
#   ruby -Ilib spec/support/http2/server.rb PORT PROTOCOL ROOT [tls]
#
# PROTOCOL is stock, http2 or falcon. The first part of a path says what serves the rest. TIMEOUT is in seconds.
require "async/http/endpoint"
require "async/http/server"
require "io/stream"
require "json"
require "openssl"
require "protocol/rack"
require "rack/body_proxy"
require "rack/files"
require "hyperion/http/sendfile/falcon"
require_relative "../certificate"

S = Hyperion::Http::Sendfile
port, protocol, root, tls = ARGV
TIMEOUT = Float(ENV.fetch("TIMEOUT", "30"))

# One file, known by its size, is on a disk that answers when another file is there.
module ColdDisk
  SIZE = 300_007
  ANSWER = File.join(ARGV.fetch(2), "cold.answer")

  def resident?(file, *)
    cold?(file) ? false : super
  end

  def read_in(file, *)
    sleep 0.005 while cold?(file)
    super
  end

  private

  def cold?(file)
    file.size == SIZE && !File.exist?(ANSWER)
  end
end
S.const_get(:Native).singleton_class.prepend(ColdDisk)

# What became of bodies, and of bursts.
module Seen
  @open = 0
  @closed_again = 0
  @bursts = 0
  @largest = 0
  @calls = 0
  @writing = 0

  class << self
    attr_accessor :open, :closed_again, :bursts, :largest, :writing, :calls
  end

  module Closing
    def self.extended(_body)
      Seen.open += 1
    end

    def close
      @closed ? Seen.closed_again += 1 : Seen.open -= 1
      @closed = true
      super
    end
  end

  module Calls
    def copy_data_frames(out, source, offset, length, **options)
      Seen.bursts += 1
      Seen.largest = [Seen.largest, length].max
      Seen.writing += 1
      super
    ensure
      Seen.writing -= 1
    end
  end
end
S.singleton_class.prepend(Seen::Calls)

plain = S::Files.new(root, {}, "application/octet-stream", timeout: TIMEOUT)
files = lambda do |env|
  Seen.calls += 1
  plain.call(env).tap { |response| response.last.extend(Seen::Closing) if S::FileBody === response.last }
end
stock = Rack::Files.new(root, {}, "application/octet-stream")
# A file that only its body knows to be one.
class Pieces
  def initialize(path)
    @file = File.open(path, "rb")
  end

  def each
    yield @file.readpartial(100_000) until @file.eof?
  end

  def close
    @file.close
  end
end

report = lambda do |_|
  tasks = ObjectSpace.each_object(Async::Task).count(&:alive?)
  found = { open: Seen.open, closed_again: Seen.closed_again, bursts: Seen.bursts, largest: Seen.largest,
            writing: Seen.writing, calls: Seen.calls, tasks: tasks, objects: GC.stat(:total_allocated_objects) }
  [200, {}, [JSON.generate(found)]]
end
apps = {
  "files" => files,
  "proxied" => lambda do |env|
    status, headers, body = files.call(env)
    [status, headers, Rack::BodyProxy.new(body) { nil }]
  end,
  "middleware" => S::Middleware.new(stock, timeout: TIMEOUT),
  "rack" => stock,
  "trailed" => files,
  "wrapped" => files,
  "completed" => files,
  "pieces" => ->(env) { [200, {}, Pieces.new(File.join(root, env["PATH_INFO"]))] },
  "seen" => report
}
app = lambda do |env|
  _, first, rest = env["PATH_INFO"].match(%r{\A/([a-z]+)(.*)\z}mn).to_a
  apps.fetch(first).call(env.merge("SCRIPT_NAME" => "/#{first}", "PATH_INFO" => rest))
end

# A wrapper of a server's own: it passes everything on, and counts.
class Counted < Protocol::HTTP::Body::Wrapper
  def initialize(*)
    super
    Seen.open += 1
  end

  def close(error = nil)
    @closed ? Seen.closed_again += 1 : Seen.open -= 1
    @closed = true
    super
  end
end

# Fields behind the body: known before its last frame, or only when it is closed.
class Trailers < Protocol::HTTP::Middleware
  def call(request)
    response = super
    headers = response.headers
    case request.path
    when %r{\A/wrapped/}
      2.times { Counted.wrap(response) }
    when %r{\A/trailed/}
      headers.add("trailer", "server-timing")
      headers.define_singleton_method(:trailer!) { { "server-timing" => "trailed" }.each }
    when %r{\A/completed/}
      headers.add("trailer", "server-timing")
      Protocol::HTTP::Body::Completable.wrap(response) { headers.add("server-timing", "completed") }
    end
    response
  end
end

options = { timeout: TIMEOUT }
protocol = { "stock" => Async::HTTP::Protocol::HTTP2, "http2" => S::HTTP2.new(**options),
             "falcon" => S::Falcon.new(http2: options) }.fetch(protocol)
if tls
  context = OpenSSL::SSL::SSLContext.new
  context.add_certificate(Certificate.x509, Certificate.key)
  names = protocol.names
  context.alpn_select_cb = ->(offered) { (names & offered).first }
end
endpoint = Async::HTTP::Endpoint.parse("http#{"s" if tls}://127.0.0.1:#{port}", protocol: protocol,
                                                                                ssl_context: context)
trap(:TERM) { Thread.main.raise(Interrupt) }
begin
  Sync { Async::HTTP::Server.new(Trailers.new(Protocol::Rack::Adapter.new(app)), endpoint).run.wait }
rescue Interrupt
  nil
end
