# frozen_string_literal: true

# Which connections are the kernel's to encrypt: it is asked, not the options.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "with kernel TLS to choose" do
  tcp_ulp = 31
  tls_rx = 2
  sol_tls = 282
  aes128_gcm = 51

  # A key of our own making: nothing is to be received by it.
  crypto_info = [0x0304, aes128_gcm].pack("SS") + ("k" * 36)

  KernelTls::KINDS.each_key do |kind|
    context "with #{kind}" do
      it "is :ktls where the kernel encrypts" do
        out, peer = KernelTls.connect(kind)
        expect(described_class.fast_path_kind(out)).to eq(:ktls)
        expect(described_class.ktls?(out)).to be(true)
        expect(described_class.ktls?(peer)).to be(false)
      end

      it "is :ktls for a client, too" do
        described_class.enable_ktls(client = Channels.send(:client_context, KernelTls::KINDS[kind]))
        allow(Channels).to receive(:client_context).and_return(client)
        _, peer = KernelTls.connect(kind, enable: false)
        expect(described_class.fast_path_kind(peer)).to eq(:ktls)
      end

      it "is :tls_userspace without the option" do
        out, = KernelTls.connect(kind, enable: false)
        expect(described_class.fast_path_kind(out)).to eq(:tls_userspace)
        expect(described_class.ktls?(out)).to be(false)
      end

      it "sends through OpenSSL where the kernel only decrypts" do
        out, peer = KernelTls.connect(kind, enable: false)
        out.to_io.setsockopt(:TCP, tcp_ulp, "tls")
        expect(described_class.ktls?(out)).to be(false)
        out.to_io.setsockopt(sol_tls, tls_rx, crypto_info)
        expect(described_class.fast_path_kind(out)).to eq(:tls_userspace)
        reader = Reader.start(peer, :greedy)
        expect(described_class.copy_to_socket(out, payload_file(1_000_003), head: "head")).to eq(1_000_003)
        out.to_io.close
        expect(reader.result).to be_payload("head".b + payload(1_000_003))
      end
    end
  end

  it "is counted by its name, whichever native way it takes" do
    out, peer = KernelTls.connect(:ktls13)
    Reader.start(peer, :greedy)
    before = described_class.stats
    [1_500, 300_007].each { |size| described_class.copy_to_socket(out, payload_file(size)) }
    after = described_class.stats
    grown = %i[responses bytes].to_h { |name| [name, after[name].to_h { |k, v| [k, v - before[name][k]] }] }
    expect(grown.transform_values { |routes| routes.reject { |_, count| count.zero? } })
      .to eq(responses: { ktls: 2 }, bytes: { ktls: 301_507 })
  end

  it "is no longer :ktls once the connection is closed" do
    out, = KernelTls.connect(:ktls13)
    out.close
    expect(described_class.ktls?(out)).to be(false)
    expect { described_class.copy_to_socket(out, payload_file(1_500)) }.to raise_error(IOError, /closed/)
  end

  it "is :tls_userspace before the handshake" do
    wire, = Cleanup.close(UNIXSocket.pair.first)
    expect(described_class.fast_path_kind(OpenSSL::SSL::SSLSocket.new(wire))).to eq(:tls_userspace)
  end
end
