# frozen_string_literal: true

# Puma encrypts in memory: a body that wrote to the socket beneath would send plaintext.
require "openssl"
require_relative "../support/servers/relay"
require_relative "../support/servers/server_process"
require_relative "../support/servers/wire"

RSpec.describe "files on Puma, encrypted" do
  rackup = File.expand_path("../support/servers/files.ru", __dir__)
  size = 3_000_017

  before(:all) do
    bind = "ssl://127.0.0.1:PORT?key=#{Payload.write("key.pem", Certificate.key.to_pem)}" \
           "&cert=#{Payload.write("cert.pem", Certificate.x509.to_pem)}"
    @server = ServerProcess.command("-S", "puma", "-q", "-e", "production", "-t", "2:2", "-b", bind, rackup,
                                    environment: { "FILES_ROOT" => Payload.dir })
  end

  after(:all) { @server.stop }

  let(:relay) { Relay.new(@server.port).tap { |relay| Cleanup.later { relay.close } } }

  let(:wire) do
    tls = OpenSSL::SSL::SSLSocket.new(TCPSocket.new("127.0.0.1", relay.port))
    tls.sync_close = true
    Wire.new(Cleanup.close(tls.connect))
  end

  # Pieces of the payload, from every part of it.
  def traces(content)
    (0...content.bytesize).step(16 * 1024).map { |offset| content.byteslice(offset, 24) }
  end

  %w[files middleware].each do |by|
    it "never shows a byte of them on the wire (#{by})" do
      content = payload(size)
      target = "/#{by}/#{File.basename(Payload.path(size))}"
      whole = wire.call("GET", target)
      expect(whole.status).to eq(200)
      expect(whole.body).to be_payload(content)
      part = wire.call("GET", target, "range" => "bytes=100000-2500000")
      expect(part.status).to eq(206)
      expect(part.body).to be_payload(content.byteslice(100_000..2_500_000))

      sent = relay.from_server
      expect(sent.bytesize).to be > 5_000_000
      expect(traces(content).select { |trace| sent.include?(trace) }).to be_empty
      expect(sent).not_to include("HTTP/1.1")
    end
  end
end
