# frozen_string_literal: true

# What goes over the wire: every suite's records, in order with OpenSSL's own, and no plaintext.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "on the wire of kernel TLS" do
  application_data = 23
  size = 1_000_003
  head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-padding: #{"h" * 60}\r\n\r\n"

  def recorded(kind, **options)
    relay = nil
    out, peer = KernelTls.connect(kind, record: ->(to) { (relay = KernelTls::Relay.new(to)).address }, **options)
    [out, Reader.start(peer, :greedy), relay]
  end

  # Any 16 bytes of it would betray it: pieces are looked for that lie so close that none can be missed.
  def pieces(plaintext, length: 16)
    (0..(plaintext.bytesize - length)).step(997).map { |at| plaintext.byteslice(at, length) }
  end

  KernelTls::SUITES.each do |kind, suites|
    suites.each do |suite|
      it "is encrypted by the kernel and exact with #{kind}, #{suite}" do
        before = KernelTls.stat
        out, reader, relay = recorded(kind, suite: suite)
        expect(out.cipher.first).to eq(suite)
        expect(described_class.fast_path_kind(out)).to eq(:ktls)
        expect(KernelTls.stat["TlsTxSw"]).to eq(before["TlsTxSw"] + 1)
        expect(described_class.copy_to_socket(out, payload_file(size), head: head)).to eq(size)
        out.close

        sent = head.b + payload(size)
        expect(reader.result).to be_payload(sent)
        wire = relay.wire
        expect(pieces(sent).select { |piece| wire.include?(piece) }).to be_empty
        expect(wire).not_to include("HTTP/1.1", "content-type", "h" * 16)
        expect(KernelTls.stat["TlsDecryptError"]).to eq(before["TlsDecryptError"])
      end
    end
  end

  KernelTls::KINDS.each_key do |kind|
    context "with #{kind}" do
      it "has what OpenSSL writes before and after in its place" do
        out, reader, = recorded(kind)
        [true, false].each do |sync|
          out.sync = sync
          out.write("before")
          described_class.copy_to_socket(out, payload_file(size), head: head)
          out.write("between")
          described_class.copy_to_socket(out, payload_file(1_500))
          out.write("after")
          out.flush
        end
        out.close
        once = ["before", head, payload(size), "between", payload(1_500), "after"].map(&:b).join
        expect(reader.result).to be_payload(once * 2)
      end

      it "has what a failed write of OpenSSL's left in Ruby's buffer before the rest" do
        out, reader, = recorded(kind)
        out.sync = false
        out.write("held")
        out.sync = true
        described_class.copy_to_socket(out, payload_file(1_500))
        out.close
        expect(reader.result).to be_payload("held".b + payload(1_500))
      end

      it "carries both directions at once" do
        expect_both_directions(*KernelTls.connect(kind), size)
      end

      it "carries a source that is no file, in order with the rest" do
        out, reader, = recorded(kind)
        described_class.copy_to_socket(out, payload_file(1_500))
        described_class.copy_to_socket(out, StringIO.new(payload(size)), head: head)
        out.close
        expect(reader.result).to be_payload(payload(1_500) + head.b + payload(size))
      end

      # Head and body of one response in the fewest records: the head in none of its own.
      { 500 => 1, 8_192 => 1, 60_000 => 4, 262_144 => 17 }.each do |bytes, most|
        it "has a head and #{bytes} bytes in at most #{most} records" do
          Waiters::ALL.each do |waiter|
            out, reader, relay = recorded(kind)
            out.write("x") # a mark where the handshake ends
            copy_under(waiter, out, payload_file(bytes), head: head)
            out.to_io.close
            expect(reader.result).to be_payload("x#{head}".b + payload(bytes))
            records = KernelTls.records(relay.wire)
            ours = records.slice(records.rindex { |type, length| type == application_data && length < 40 }.succ..)
            expect(ours.map(&:first)).to all(eq(application_data))
            expect(ours.size).to be <= most, "#{waiter}: #{ours}"
          end
        end
      end
    end
  end
end
