# frozen_string_literal: true

# TLS in userspace: what a plain socket has no counterpart of. The rest is in the specs that run over every route.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "over TLS in userspace" do
  size = 1_000_003
  head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-padding: #{"h" * 60}\r\n\r\n"
  record = 16_384
  application_data = 23
  waiters = %i[thread fiber_minimal]
  tls12 = OpenSSL::SSL::TLS1_2_VERSION
  tls13 = OpenSSL::SSL::TLS1_3_VERSION

  # Reads what the client has sent that is no data: OpenSSL then has something to do before it writes.
  def hear(out)
    out.to_io.wait_readable(5) or raise "the client sent nothing"
    expect(out.read_nonblock(1, exception: false)).to eq(:wait_readable)
  end

  # [the server's side, a client that has begun to renegotiate and does not go on]
  def renegotiating
    out, client = SClient.connect(OpenSSL::SSL::TLS1_2_VERSION)
    client.tell(:renegotiate)
    out.to_io.wait_readable(5)
    client.pause
    hear(out)
    [out, client]
  end

  def cork(out)
    out.to_io.getsockopt(:TCP, :CORK).int
  end

  # [the sender, the reader, what is recorded of the wire]
  def recorded(kind)
    relay = nil
    out, peer = KernelTls.connect(kind, enable: false, record: ->(to) { (relay = KernelTls::Relay.new(to)).address })
    [out, Reader.start(peer, :greedy), relay]
  end

  waiters.each do |waiter|
    context "when waiting by #{waiter}", if: SClient.available? do
      %i[update_key update_both_keys].each do |command|
        it "goes on with new keys before and in the middle (#{command})" do
          out, client = SClient.connect(tls13)
          client.tell(command)
          hear(out)
          updates = 1
          copy_under(waiter, out, payload_file(size), head: head) do |sent|
            next unless sent > updates * 300_000

            updates += 1
            client.tell(command)
            hear(out)
          end
          out.close
          expect(client.result).to be_payload(head.b + payload(size))
          expect(updates).to be > 2
        end
      end

      it "waits for the client's part of a renegotiation" do
        out, client = renegotiating
        sender = start_copy(waiter, out, payload_file(size), head: head)
        eventually("a sender asleep") { sender.asleep? }
        client.go_on
        expect(sender.value).to eq(size)
        expect(sender.scheduler.waits.map(&:events)).to include(IO::READABLE) if waiter == :fiber_minimal
        out.close
        expect(client.result).to be_payload(head.b + payload(size))
      end

      it "waits no longer for it than the timeout" do
        out, = renegotiating
        error = nil
        took = seconds { error = start_copy(waiter, out, payload_file(size), timeout: 0.2).error }
        expect(error).to be_a(described_class::TimeoutError).and have_attributes(bytes_sent: 0, bytes_expected: size)
        expect(took).to be_between(0.19, 0.19 + Eventually::LATE)
      end

      # RFC 6066: OpenSSL then takes a part of what it is given at a time.
      [[tls12, "-tls1_2"], [tls13, "-tls1_3"]].each do |version, option|
        it "is exact with shorter records, which the client may ask for (#{option})" do
          out, client = SClient.connect(version, option, "-maxfraglen", "512")
          expect(copy_under(waiter, out, payload_file(size), 7, 300_000, head: head)).to eq(300_000)
          out.close
          expect(client.result).to be_payload(head.b + payload(size).byteslice(7, 300_000))
        end
      end
    end
  end

  unless SClient.available?
    warn "tls_spec: the command openssl is not installed: new keys, renegotiation and short records are not looked at"
  end

  %i[ktls12 ktls13].each do |kind|
    it "puts no plaintext on the wire, and no more records than are needed (#{kind})" do
      out, reader, relay = recorded(kind)
      out.write("x") # a mark where the handshake ends
      described_class.copy_to_socket(out, payload_file(size), head: head)
      out.to_io.close
      sent = head.b + payload(size)
      expect(reader.result).to be_payload("x".b + sent)
      wire = relay.wire
      pieces = (0..(sent.bytesize - 16)).step(997).map { |at| sent.byteslice(at, 16) }
      expect(pieces.select { |piece| wire.include?(piece) }).to be_empty
      records = KernelTls.records(wire)
      ours = records.drop(records.rindex { |type, length| type == application_data && length < 40 } + 1)
      expect(ours.size).to eq((sent.bytesize.to_f / record).ceil)
    end

    it "carries both directions at once (#{kind})" do
      expect_both_directions(*KernelTls.connect(kind, enable: false), size)
    end
  end

  it "has what a failed write of OpenSSL's left in Ruby's buffer before the rest" do
    [payload_file(size), StringIO.new(payload(size))].each do |source|
      channel = channel(:tls13)
      reader = channel.read
      channel.out.sync = false
      channel.out.write("held")
      channel.out.sync = true
      copy_under(:thread, channel.out, source, 0, size)
      channel.finish
      expect(reader.result).to be_payload("held".b + payload(size))
    end
  end

  %i[write_nonblock syswrite_nonblock].each do |name|
    it "goes through a #{name} that is not OpenSSL's, and may keep what it is given" do
      channel = channel(:tls13)
      reader = channel.read
      kept = []
      channel.out.define_singleton_method(name) do |data, **options|
        super(data, **options).tap { |written| kept << [data.dup, written] if written.is_a?(Integer) }
      end
      copy_under(:thread, channel.out, payload_file(size), 0, size, head: head)
      channel.finish
      expect(kept.map { |data, written| data.byteslice(0, written) }.join).to be_payload(head.b + payload(size))
      expect(reader.result).to be_payload(head.b + payload(size))
    end
  end

  it "waits for room where another thread's error makes OpenSSL say EAGAIN", needs: :extension do
    tls_socket = OpenSSL::SSL::SSLSocket
    original = tls_socket.instance_method(:syswrite_nonblock)
    said = 0
    tls_socket.define_method(:syswrite_nonblock) do |*arguments|
      original.bind_call(self, *arguments)
    rescue OpenSSL::SSL::SSLErrorWaitWritable
      said += 1
      raise Errno::EAGAIN
    end
    out, peer = KernelTls.connect(:ktls13, small: true, enable: false)
    reader = Reader.start(peer, :slow)
    expect(described_class.copy_to_socket(out, payload_file(size), 0, size, timeout: 30)).to eq(size)
    out.close
    expect(reader.result).to be_payload(payload(size))
    expect(said).to be_positive
  ensure
    tls_socket&.define_method(:syswrite_nonblock, original) if original
  end

  it "sends exactly what is not in the page cache" do
    file = private_payload_file(size)
    file.fdatasync
    waiters.each do |waiter|
      file.advise(:dontneed)
      channel = channel(:tls13)
      reader = channel.read
      copy_under(waiter, channel.out, file, 0, size, head: head)
      channel.finish
      expect(reader.result).to be_payload(head.b + payload(size))
    end
  end

  it "makes no object for a record", needs: :extension do
    channel = channel(:tls13)
    reader = channel.read(process: true)
    file = payload_file(4_194_304)
    allocated = [262_144, 4_194_304].map do |bytes|
      described_class.copy_to_socket(channel.out, file, 0, bytes)
      Array.new(5) do
        before = GC.stat(:total_allocated_objects)
        described_class.copy_to_socket(channel.out, file, 0, bytes)
        GC.stat(:total_allocated_objects) - before
      end.min
    end
    channel.finish
    reader.result
    # A full socket is an exception of OpenSSL's, and a step is a wait.
    expect(allocated.last - allocated.first).to be < (4_194_304 - 262_144) / record / 2
  end

  describe "the socket's cork" do
    {
      "is out after success" => [size, 0],
      "is out after a failure" => [size + 1, 0],
      "stays in if it was" => [size, 1]
    }.each do |what, (length, corked)|
      it what do
        channel = channel(:tls13)
        reader = channel.read
        channel.wire.setsockopt(:TCP, :CORK, corked)
        said = start_copy(:thread, channel.out, payload_file(size), 0, length)
        length > size ? expect(said.error).to(be_a(described_class::TruncatedError)) : said.value
        expect(cork(channel.out)).to eq(corked)
        channel.finish
        expect(reader.result).to be_payload(payload(size))
      end
    end

    it "is out whenever the transfer waits" do
      channel = channel(:tls13, small: true)
      channel.wire.setsockopt(:SOCKET, :SNDBUF, 40_000)
      reader = channel.read(:stalled)
      sender = start_copy(:thread, channel.out, payload_file(size), 0, size)
      await_backpressure(channel, sender)
      expect(cork(channel.out)).to eq(0)
      reader.go(:greedy)
      sender.value
      channel.finish
      expect(reader.result).to be_payload(payload(size))
    end
  end

  describe "the end of the connection" do
    waiters.each do |waiter|
      it "is an error that says how far it came when the peer takes its leave midway (#{waiter})" do
        out, peer = KernelTls.connect(:ktls13, enable: false)
        sender = start_copy(waiter, out, payload_file(4_194_304))
        peer.read(100_000)
        peer.close
        error = sender.error
        expect(error).to be_a(Errno::EPIPE).or be_a(Errno::ECONNRESET)
        expect(error.bytes_sent).to be_between(100_000 - record, 4_194_303)
        expect(error.bytes_expected).to eq(4_194_304)
      end

      it "is an error that says how far it came when our side has taken its leave (#{waiter})" do
        channel = channel(:tls13)
        reader = channel.read
        sender = start_copy(waiter, channel.out, payload_file(4_194_304)) do |sent|
          channel.out.send(:stop) if sent >= 1_000_000
        end
        error = sender.error
        expect(error).to be_a(OpenSSL::SSL::SSLError)
        expect(error).to have_attributes(bytes_sent: be_between(1_000_000, 4_194_303), bytes_expected: 4_194_304)
        channel.finish
        expect(reader.result).to be_payload(payload(4_194_304).byteslice(0, error.bytes_sent))
      end
    end

    # As another thread may do while a step waits for a disk.
    it "is told with what went out where it is closed for writing in the middle of a step" do
      channel = channel(:tls13)
      records = 0
      trace = TracePoint.new(:c_return) do |point|
        channel.wire.close_write if point.method_id == :syswrite_nonblock && (records += 1) == 3
      end
      trace.enable
      expect { described_class.copy_to_socket(channel.out, payload_file(size)) }.to raise_error do |error|
        trace.disable
        expect(error).to be_an(IOError).or be_a(SystemCallError)
        expect(error).to have_attributes(bytes_sent: 3 * record, bytes_expected: size)
      end
    ensure
      trace&.disable
    end
  end
end
