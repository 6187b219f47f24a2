# frozen_string_literal: true

# The files of a folder by HTTP/2, and how many objects the process has made.
#
#   ruby -Ilib bench/http2/server.rb PROTOCOL SCHEME PORT ROOT

require "bundler/setup"
require "async/http/endpoint"
require "async/http/server"
require "io/stream"
require "openssl"
require "protocol/rack"
require "hyperion/http/sendfile/http2"
require_relative "../../spec/support/certificate"
require_relative "../support/pacing"

protocol, scheme, port, root = ARGV
files = Hyperion::Http::Sendfile::Files.new(root)
app = lambda do |env|
  next files.call(env) unless env["PATH_INFO"] == "/objects"

  [200, {}, [GC.stat(:total_allocated_objects).to_s]]
end

if scheme == "https"
  context = OpenSSL::SSL::SSLContext.new
  context.add_certificate(Certificate.x509, Certificate.key)
  context.alpn_select_cb = ->(names) { names.include?("h2") ? "h2" : nil }
end

# Each connection without pacing, which it has from its listener.
Socket.prepend(Module.new do
  def listen(*)
    Bench::Pacing.off(self)
    super
  end
end)

endpoint = Async::HTTP::Endpoint.parse("#{scheme}://127.0.0.1:#{port}", protocol: Object.const_get(protocol),
                                                                        ssl_context: context)
trap(:TERM) { exit!(0) }
Sync { Async::HTTP::Server.new(Protocol::Rack::Adapter.new(app), endpoint).run.wait }
