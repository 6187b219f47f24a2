# frozen_string_literal: true

# Cases of other projects' sendfile suites that no other spec has: spec/published_suites.md says which case is where.

require "spec_helper"
require "pty"
require "tempfile"
require_relative "every_route"

RSpec.describe Hyperion::Http::Sendfile, "in the cases of published suites" do
  include EveryRoute
  include Faults::Helpers

  primitives = %i[copy copy_small copy_splice copy_splice_into_pipe]

  # Sends to a greedy reader, and ends the stream; returns what arrived and what the call said.
  def deliver(waiter, kind, source, *region, **options)
    channel = channel(kind)
    reader = channel.read
    said = copy_under(waiter, channel.out, source, *region, **options)
    channel.finish
    [channel.decode(reader.result), said]
  end

  # One attempt by a primitive, as [bytes, status]; copy_small has no status.
  def attempt(name, out, file, offset, length)
    @pipes = IO.pipe.each { |io| Cleanup.close(io) } if name == :copy_splice_into_pipe
    said = S.public_send(name, out, file, offset, length, *@pipes)
    name == :copy_small ? [said, nil] : said
  end

  # A file that the example may write to, and its path.
  def scratch(content = "", mode = "r+b")
    path = Payload.write("scratch-#{rand(1 << 60)}", content)
    Cleanup.later { File.delete(path) }
    [Cleanup.close(File.open(path, mode)), path]
  end

  # A pipe that holds +content+ and stays open for more.
  def pipe_with(content, *encodings)
    IO.pipe(*encodings).each { |io| Cleanup.close(io) }.tap { |_, feed| feed.binmode.write(content) }
  end

  def rot(string)
    Channels::Wrapper.garble(string)
  end

  describe "the table of them" do
    # The text of a spec, with the shared examples that it runs.
    def text_of(name)
      paths = ["#{__dir__}/#{name}_spec.rb", "#{__dir__}/../../../support/#{name}.rb"]
      paths.select { |path| File.file?(path) }.map { |path| File.read(path) }.join.gsub(/" \\\n\s*"/, "")
    end

    it "has every example that the table names" do
      table = File.readlines("#{__dir__}/../../../published_suites.md").grep(/^\|/).join
      cells = table.scan(/`(\w+)`: ((?:"[^"]+"(?:, )?)+)/)
      named = cells.flat_map { |name, titles| titles.scan(/"([^"]+)"/).flatten.map { |title| [name, title] } }
      expect(named.size).to be > 100
      expect(named.uniq.reject { |name, title| text_of(name).include?(title) }).to eq([])
    end
  end

  describe "a regular file as the destination" do
    # Never full, so nothing that is waited for; and it has a position, which is none of the source's.
    [24, 60_000, 300_007, 3_000_003].each do |size|
      it "is written from its own position on, whatever the source's offset (#{size} bytes)" do
        Waiters::ALL.product([true, false]) do |waiter, splice|
          out, path = scratch("hello")
          out.seek(0, IO::SEEK_END)
          source = payload_file(3_000_003 + 2)
          with_splice(splice) do
            expect(copy_under(waiter, out, source, 2, size, head: "head ")).to eq(size)
          end
          expect(File.binread(path)).to be_payload("hellohead ".b + payload(3_000_003 + 2).byteslice(2, size))
          expect([out.pos, source.pos]).to eq([10 + size, 0])
        end
      end
    end

    it "is overwritten where Ruby has read ahead in it, not where that ended" do
      [payload_file(60_000), payload_file(300_007), pipe_with("xyz").first].each do |source|
        out, path = scratch("abcd\n")
        expect(out.read(3)).to eq("abc") # and the rest is in Ruby's buffer
        out.ungetc("c")
        expect(S.copy_to_socket(out, source, 0, 3)).to eq(3)
        expect(File.binread(path)).to eq("ab".b + (source.is_a?(File) ? source.pread(3, 0) : "xyz"))
      end
    end

    it "gets bytes, whatever encoding it was opened with" do
      ["w:UTF-16LE", "w:ISO-8859-1:UTF-8", "wt"].product([true, false], Waiters::ALL) do |mode, memory, waiter|
        out, path = scratch("", mode)
        source = memory ? StringIO.new(payload(1_500)) : payload_file(1_500)
        expect(copy_under(waiter, out, source, 0, 1_500, head: "\xff\n".b)).to eq(1_500)
        expect(File.binread(path)).to be_payload("\xff\n".b + payload(1_500))
      end
    end

    it "may be a Tempfile" do
      [StringIO.new(payload(60_000)), payload_file(60_000), payload_file(300_007)].each do |source|
        out = Tempfile.new(binmode: true)
        Cleanup.later { out.close! }
        expect(S.copy_to_socket(out, source, 7, 50_000)).to eq(50_000)
        expect(out.pos).to eq(50_000)
        expect(out.tap(&:rewind).read).to be_payload(source.read.byteslice(7, 50_000))
      end
    end

    it "may be the source" do
      file, path = scratch(payload(300_007))
      file.seek(0, IO::SEEK_END)
      expect(S.copy_to_socket(file, file, 7, 300_000)).to eq(300_000)
      expect(File.binread(path)).to be_payload(payload(300_007) + payload(300_007).byteslice(7..))
    end
  end

  describe "descriptors that are open the other way", needs: :linux do
    let(:readable) { payload_file(100_003).fileno }
    let(:writable) { scratch("", "wb").first.fileno }

    (primitives + %i[copy_to_socket copy_to_socket_blocking]).each do |name|
      it "are the kernel's EBADF (#{name})" do
        out = channel(:tcp).out
        lengths = name == :copy_small ? [1, 60_000] : [1, 60_000, 100_003]
        pairs = [[readable, readable], [out, writable], [writable, writable], [readable, writable]]
        pairs.product(lengths) do |pair, length|
          expect do
            name.start_with?("copy_to") ? S.public_send(name, *pair, 0, length) : attempt(name, *pair, 0, length)
          end.to raise_error(Errno::EBADF)
        end
      end
    end
  end

  describe "a datagram socket" do
    # A connected pair, with room for all of it.
    def datagrams
      [UDPSocket.new, UDPSocket.new].each { |io| Cleanup.close(io) }.tap do |out, peer|
        peer.bind("127.0.0.1", 0)
        peer.setsockopt(:SOCKET, :RCVBUF, 1 << 20)
        out.connect("127.0.0.1", peer.local_address.ip_port)
      end
    end

    it "gets what fits into one datagram, head and all" do
      Waiters::ALL.product([nil, "head"], [1, 1_500, 8_193, 60_000]) do |waiter, head, size|
        out, peer = datagrams
        expect(copy_under(waiter, out, payload_file(size), 0, size, head: head)).to eq(size)
        expect(peer.recv_nonblock(1 << 16)).to be_payload(head.to_s.b + payload(size))
      end
    end

    it "gets nothing of what does not, and the call says so" do
      sizes = [65_507, 65_536, 100_003, 300_007]
      Waiters::ALL.product([nil, "head"], sizes, [true, false]) do |waiter, head, size, splice|
        next if size == 65_507 && head.nil? # fits

        out, peer = datagrams
        sender = with_splice(splice) { start_copy(waiter, out, payload_file(size), 0, size, head: head).tap(&:error) }
        expect(sender.error).to be_a(Errno::EMSGSIZE).and have_attributes(bytes_sent: 0, bytes_expected: size)
        expect(peer.recv_nonblock(1 << 16, exception: false)).to eq(:wait_readable)
      end
    end

    it "says that it is full, and is waited for", needs: :linux do
      out, peer = UNIXSocket.pair(:DGRAM).each { |io| Cleanup.close(io) }
      out.nonblock = true
      nil until out.write_nonblock("x", exception: false) == :wait_writable
      primitives.each do |name|
        expect(attempt(name, out, payload_file(1_500), 0, 1)).to eq([0, name == :copy_small ? nil : :eagain])
      end
      senders = Waiters::ALL.map { |waiter| start_copy(waiter, out, payload_file(1_500), 0, 1_500, timeout: 5) }
      senders.each { |sender| eventually("a sender asleep") { sender.asleep? } }
      received = []
      received << peer.recv(1 << 16) until received.count(payload(1_500)) == senders.size
      expect(received.uniq).to eq(["x", payload(1_500)])
      senders.each { |sender| expect(sender.value).to eq(1_500) }
    end
  end

  describe "numbers that 32 bits can't say" do
    # Data on both sides of 2 GiB and of 4 GiB, holes elsewhere.
    def sparse
      file, = scratch
      [2, 4].each { |gigabytes| file.pwrite(payload(300_007), (gigabytes << 30) - 150_000) }
      file
    end

    it "are crossed by a region" do
      file = sparse
      [2, 4].product(Waiters::ALL, [true, false], %i[tcp tls13]) do |gigabytes, waiter, splice, kind|
        next if splice && kind != :tcp

        with_splice(splice) do
          received, said = deliver(waiter, kind, file, (gigabytes << 30) - 149_999, 300_000)
          expect(received).to be_payload(payload(300_007).byteslice(1, 300_000))
          expect(said).to eq(300_000)
        end
      end
    end

    it "may be the length" do
      length = (4 << 30) + 10 # 10, in 32 bits
      file, = scratch(payload(1_000_003))
      file.truncate(5 << 30)
      Waiters::ALL.product([true, false], [[0, length], [0, nil]]) do |waiter, splice, region|
        channel = channel(:tcp)
        reader = channel.read(stall_after: 1_500_000)
        with_splice(splice) do
          sender = start_copy(waiter, channel.out, file, *region)
          reader.wait_for_bytes(1_500_000).reset
          expect(sender.error).to be_a(SystemCallError).and have_attributes(
            bytes_expected: region.last || (5 << 30), bytes_sent: (be >= 1_500_000)
          )
        end
        expect(reader.result).to be_payload(payload(1_000_003) + ("\0".b * 499_997))
      end
    end

    it "may be the length of an attempt", needs: :linux do
      file, = scratch
      file.truncate(5 << 30)
      (primitives - [:copy_small]).each do |name|
        sent, status = attempt(name, channel(:tcp).out, file, 0, (4 << 30) + 10)
        expect(sent).to be > 10
        expect(status).to eq(:partial)
      end
    end
  end

  describe "a file in pieces of the caller's" do
    primitives.each do |name|
      it "arrives whole by #{name}, from any offset, up to the 0 at its end", needs: :linux do
        file = payload_file(160_000)
        [0, 80_000].each do |from|
          channel = channel(:unix)
          reader = channel.read
          at = from
          loop do
            moved, = attempt(name, channel.out, file, at, 4_096)
            next channel.wire.wait_writable(1) if moved.zero? && at < 160_000
            break if moved.zero?

            expect(moved).to be <= 4_096
            at += moved
          end
          channel.finish
          expect(reader.result).to be_payload(payload(160_000).byteslice(from..))
        end
      end
    end

    it "arrives whole by one call for each, with nothing between and nothing but the connection in common" do
      %i[tcp unix tls13 wrapper].product(Waiters::ALL) do |kind, waiter|
        channel = channel(kind)
        reader = channel.read
        run_under(waiter) do
          [[0, 3], [3, 3], [6, 3], [9, 0], [9, 70_000], [70_009, nil]].each do |region|
            S.copy_to_socket(channel.out, payload_file(300_007), *region)
          end
        end
        channel.finish
        expect(channel.decode(reader.result)).to be_payload(payload(300_007))
      end
    end

    it "has grown by the next call" do
      file, path = scratch
      channel = channel(:unix)
      reader = channel.read
      sizes = [0, 1, 0, 5_000, 0, 300_007]
      at = 0
      sizes.each do |size|
        File.binwrite(path, payload(size), mode: "a")
        expect(S.copy_to_socket(channel.out, file, at)).to eq(size)
        at += size
      end
      channel.finish
      expect(reader.result).to be_payload(sizes.sum("".b) { |size| payload(size) })
    end
  end

  describe "an empty file" do
    (Channels::ALL - Channels::MEMORY).each do |kind|
      it "sends its head alone (#{kind})" do
        Waiters::ALL.each do |waiter|
          expect(deliver(waiter, kind, scratch.first)).to eq(["", 0])
          expect(deliver(waiter, kind, scratch.first, head: "head")).to eq(["head", 0])
          expect { deliver(waiter, kind, scratch.first, 0, 4_096) }.to raise_error(S::TruncatedError, /0 of 4096/)
        end
      end
    end
  end

  describe "what the program itself writes" do
    (Channels::KERNEL + Channels::TLS + %i[wrapper]).each do |kind|
      it "stays before and behind the region, through a full connection (#{kind})" do
        Waiters::ALL.each do |waiter|
          channel = channel(kind, small: true)
          reader = channel.read(:slow, slow_for: 40_000)
          run_under(waiter) do
            channel.out.write("before" * 1_000)
            S.copy_to_socket(channel.out, payload_file(8_193), 0, 0)
            S.copy_to_socket(channel.out, payload_file(131_088), 7, 131_000)
            channel.out.write("behind" * 1_000)
          end
          channel.finish
          expect(channel.decode(reader.result)).to be_payload(
            ("before" * 1_000).b + payload(131_088).byteslice(7, 131_000) + ("behind" * 1_000).b
          )
        end
      end
    end
  end

  describe "the end of the connection" do
    (Channels::KERNEL + Channels::TLS).each do |kind|
      it "is no error where the peer closes as soon as it has everything (#{kind})" do
        Waiters::ALL.product([1_500, 262_145]) do |waiter, size|
          channel = channel(kind, small: true)
          received = Thread.new { channel.peer.read(size).tap { channel.peer.to_io.close } }
          expect(copy_under(waiter, channel.out, payload_file(size), 0, size)).to eq(size)
          expect(received.value).to be_payload(payload(size))
        end
      end
    end

    (%i[tcp unix] + Channels::TLS).each do |kind|
      it "is EPIPE where our side was shut down, and nothing is sent (#{kind})" do
        Waiters::ALL.product([1_500, 262_145]) do |waiter, size|
          channel = channel(kind)
          channel.wire.shutdown(:WR)
          sender = start_copy(waiter, channel.out, payload_file(size), 0, size, head: "head")
          expect(sender.error).to be_a(Errno::EPIPE).and have_attributes(bytes_sent: 0, bytes_expected: size)
          expect(channel.peer.to_io.read_nonblock(1 << 16, exception: false)).to be_nil if %i[tcp unix].include?(kind)
        end
      end
    end
  end

  describe "a terminal as the source" do
    it "is read from where it stands, for a length or to its end" do
      Waiters::ALL.product([5, nil], [true, false]) do |waiter, length, nonblock|
        main, terminal = PTY.open.each { |io| Cleanup.close(io) }
        terminal.nonblock = nonblock
        main.write("data\n#{"\x04" if length.nil?}") # Ctrl-D is the end
        expect(deliver(waiter, :tcp, terminal, 0, length)).to eq(["data\n", 5])
        expect(terminal.nonblock?).to be(nonblock)
      end
    end
  end

  describe "a pipe as the source" do
    it "keeps its O_NONBLOCK" do
      Waiters::ALL.product([true, false]) do |waiter, nonblock|
        source, = pipe_with("ab")
        source.nonblock = nonblock
        expect(deliver(waiter, :tcp, source, 0, 1)).to eq(["a", 1])
        expect(source.nonblock?).to be(nonblock)
        expect(source.readpartial(9)).to eq("b")
      end
    end

    it "is read from what Ruby has of it on, without waiting for more" do
      Waiters::ALL.product(%i[tcp pipe tls13 wrapper]) do |waiter, kind|
        source, = pipe_with("abc")
        source.getc
        source.ungetbyte("A")
        expect(deliver(waiter, kind, source, 0, 3)).to eq(["Abc", 3])
      end
    end

    it "gives bytes, whatever encoding it was opened with" do
      source, feed = pipe_with(payload(30_001), "UTF-16LE", "UTF-8")
      feed.close
      received, said = deliver(:thread, :tcp, source)
      expect(received).to be_payload(payload(30_001))
      expect(said).to eq(30_001)
    end

    it "may be non-blocking like the destination, and slower or faster" do
      Waiters::ALL.each do |waiter|
        source, feed = pipe_with("")
        [source, feed].each { |io| io.nonblock = true }
        feeder = Thread.new { feed.write(payload(1_000_003)) && feed.close }
        received, said = deliver(waiter, :pipe, source)
        expect(received).to be_payload(payload(1_000_003))
        expect(said).to eq(1_000_003)
        feeder.join
      end
    end

    it "burns no CPU while it is empty" do
      started = Waiters::ALL.map do |waiter|
        source, feed = pipe_with("")
        source.nonblock = true
        sender = start_copy(waiter, Channels::Writer.new, source)
        end_by_itself(sender) { feed.close }
        eventually("a sender asleep") { sender.asleep? }
        [sender, feed]
      end
      expect(cpu_seconds { sleep 0.2 }).to be < 0.1
      started.each do |sender, feed|
        feed.close
        expect(sender.value).to eq(0)
      end
    end
  end

  describe "a file as the source" do
    it "is sent from its offset on, whatever Ruby has read of it, which Ruby still has" do
      Waiters::ALL.product([1_500, 300_007]) do |waiter, size|
        file = payload_file(size)
        expect(file.read(100)).to eq(payload(size).byteslice(0, 100)) # and more of it is in Ruby's buffer
        expect(deliver(waiter, :tcp, file, 1).first).to be_payload(payload(size).byteslice(1..))
        expect(file.pos).to eq(100)
        expect(file.read).to be_payload(payload(size).byteslice(100..))
      end
    end

    it "is sent with what Ruby has yet to write to it" do
      Waiters::ALL.product(%i[tcp tls13], [400, 60_000, 300_007], [true, false]) do |waiter, kind, size, given|
        file, path = scratch("abcd\n", "w+b")
        file.write(payload(size))
        expect(deliver(waiter, kind, file, 0, given ? size : nil).first).to be_payload(payload(size))
        expect(File.binread(path)).to be_payload(payload(size))
      end
    end

    it "is sent with what Ruby has yet to write to it, by the primitives, too", needs: :linux do
      primitives.each do |name|
        file, = scratch("", "w+b")
        file.write("unwritten")
        expect(attempt(name, channel(:unix).out, file, 2, 7).first).to eq(7)
      end
    end

    it "gives bytes, whatever encoding it was opened with" do
      %i[tcp tls13 wrapper].each do |kind|
        file = Cleanup.close(File.open(Payload.path(300_007), "r:UTF-16LE:UTF-8"))
        expect(deliver(:thread, kind, file).first).to be_payload(payload(300_007))
      end
    end
  end

  describe "a source with a read of its own" do
    it "is at its end when it says nil, whatever is in the buffer" do
      source = Object.new
      source.define_singleton_method(:reads) { @reads.to_i }
      source.define_singleton_method(:read) do |_length, buffer|
        @reads = reads + 1
        buffer.replace("not to be sent")
        nil
      end
      Waiters::ALL.each do |waiter|
        expect(deliver(waiter, :tcp, source)).to eq(["", 0])
      end
      expect(source.reads).to eq(Waiters::ALL.size)
    end

    it "decodes what the destination's own write encodes" do
      source = Struct.new(:to_io) do
        def readpartial(...)
          Channels::Wrapper.garble(to_io.readpartial(...))
        end
      end
      Waiters::ALL.each do |waiter|
        encoded = scratch(rot(payload(70_001))).first
        expect(deliver(waiter, :wrapper, source.new(encoded)).first).to be_payload(payload(70_001))
      end
    end
  end
end
