# frozen_string_literal: true

# Combinations that are rare, and each of which once went wrong.

require "spec_helper"
require "io/console"
require "open3"
require "pty"
require "rbconfig"
require "tempfile"
require "zlib"

RSpec.describe Hyperion::Http::Sendfile, "at the edges" do
  size = 300_007

  # A destination whose socket is full, and with a byte in Ruby's own buffer though it is in sync mode.
  def buffered_in_sync_mode
    channel(:unix, small: true).tap do |channel| # TCP makes room by itself, as long as its peer's side has some
      out = channel.out
      nil until out.write_nonblock("x" * 65_536, exception: false) == :wait_writable
      out.sync = false
      out.write("y")
      out.sync = true
    end
  end

  it "keeps to the timeout where a buffer was filled before sync mode was set", needs: :write_buffer do
    channel = buffered_in_sync_mode
    sender = start_under(:thread) { S.copy_to_socket(channel.out, payload_file(8_192), 0, 8_192, timeout: 0.3) }
    expect { sender.value }.to raise_error(S::TimeoutError)
  end

  it "raises no SIGPIPE for what Ruby had buffered", needs: :extension do
    output, status = Open3.capture2e(RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }, "-e", <<~RUBY)
      require "hyperion/http/sendfile"
      require "socket"
      trap("PIPE", "SYSTEM_DEFAULT")
      out, peer = UNIXSocket.pair
      out.sync = false
      out.write("x")
      peer.close
      begin
        Hyperion::Http::Sendfile.copy_to_socket(out, File.open("#{Payload.path(1_500)}"))
      rescue Errno::EPIPE => e
        $stdout.syswrite(e.bytes_sent)
      end
      exit!(true) # or Ruby tries to write what is buffered once more
    RUBY
    expect([output, status.success?]).to eq(["0", true])
  end

  # More than the page that guards a stack must not be taken of it in one step, least of all without the GVL.
  it "needs little of the stack", needs: :extension do
    output, status = Open3.capture2e(RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }, "-e", <<~RUBY)
      require "hyperion/http/sendfile"
      require "socket"
      out, peer = UNIXSocket.pair
      file = File.open("#{Payload.path(1_500)}")
      Thread.new { loop { peer.readpartial(65_536) } }
      $deepest = 0
      def dig(depth, stop, &bottom)
        $deepest = depth if depth > $deepest
        depth == stop ? bottom.call : [0].each { [0].sort_by { dig(depth + 1, stop, &bottom) && 0 } }
      end
      def fits?(stop, &bottom)
        Thread.new do
          dig(0, stop, &bottom) && true
        rescue SystemStackError
          false
        end.value
      end
      fits?(-1)
      whole = $deepest
      puts(whole - whole.downto(0).find { |depth| fits?(depth) { Hyperion::Http::Sendfile.copy_small(out, file, 0, 1_500) } })
    RUBY
    expect(status).to be_success, output
    expect(output.to_i).to be < 5
  end

  # It says that it is writable while it has room for a byte. How much it has is chance.
  it "keeps to the timeout where a terminal in blocking mode is full", needs: :extension do
    [1, 2_500, 4_000].each do |before|
      reader, out = PTY.open.each { |io| Cleanup.close(io) }
      out.raw!
      out.syswrite("x" * before)
      out.nonblock = false
      sender = start_under(:thread) { S.copy_to_socket(out, payload_file(size), 0, size, timeout: 0.3) }
      expect { sender.value }.to raise_error(S::TimeoutError)
      received = reader.readpartial(4_000)
      expect(received).to be_payload((("x" * before) + payload(size)).byteslice(0, received.bytesize))
    end
  end

  it "knows that a file ends before an offset that no file of its kind has", unless: RUBY_ENGINE == "jruby" do
    [2**44, 2**62].product([1_500, 60_000, 300_007]) do |offset, length|
      expect { S.copy_to_socket(channel(:unix).out, payload_file(size), offset, length, timeout: 5) }
        .to raise_error(S::TruncatedError)
    end
  end

  it "lets an error that is frozen through as it is" do
    out = Object.new
    out.define_singleton_method(:write) { |_| raise IOError.new("full").freeze }
    expect { S.copy_to_socket(out, payload_file(1_500)) }.to raise_error(IOError, "full")
  end

  it "lets a block that waits be killed, over TLS too" do
    %i[tcp tls13].each do |kind|
      channel = channel(kind)
      channel.read
      waiting = Queue.new
      thread = Thread.new do
        S.copy_to_socket(channel.out, payload_file(size), 0, size) { waiting.push(true) && Queue.new.pop }
      end
      waiting.pop
      expect(thread.kill.join(10)).to be(thread)
    end
  end

  it "hears what the block raises, whatever it is" do
    [Errno::ESPIPE, Errno::EINVAL, EOFError, IOError].each do |error|
      [1_500, size].each do |bytes|
        channel = channel(:tcp)
        channel.read
        expect { S.copy_to_socket(channel.out, payload_file(size), 0, bytes) { raise error, "mine" } }
          .to raise_error(error, /mine/)
      end
    end
  end

  it "writes to the writing half of a pair of pipes, by every waiter", needs: :extension do
    Waiters::ALL.each do |waiter|
      IO.popen([RbConfig.ruby, "-e", "$stdin.binmode; print $stdin.read.sum(32)"], "r+b") do |pipes|
        copy_under(waiter, pipes, payload_file(size), 0, size)
        pipes.close_write
        expect(pipes.read).to eq(payload(size).sum(32).to_s), waiter.to_s
      end
    end
  end

  it "counts what a first attempt sent, whatever fails next", needs: :extension do
    channel = channel(:tcp)
    allow(S).to receive(:copy_small).and_wrap_original do |original, out, *rest|
      original.call(out, *rest[0..1], 1_000).tap { out.close }
    end
    expect { S.copy_to_socket(channel.out, payload_file(8_192), 0, 8_192) }
      .to raise_error(IOError) { |error| expect(error.bytes_sent).to eq(1_000) }
  end

  it "reads what decodes by its own read, not from the file below" do
    Tempfile.create("gzip") do |file|
      Zlib::GzipWriter.wrap(file) { |gzip| gzip.write(payload(size)) }
      out = StringIO.new
      Zlib::GzipReader.open(file.path) { |gzip| expect(S.copy_to_socket(out, gzip)).to eq(size) }
      expect(out.string).to be_payload(payload(size))
    end
  end

  it "reads what decodes by a readpartial alone by that, too" do
    decoder = Struct.new(:to_io) do
      def readpartial(...)
        Channels::Wrapper.garble(to_io.readpartial(...))
      end
    end
    [1_500, size].each do |bytes|
      [StringIO.new(+"".b), Channels::Wrapper.new(StringIO.new(+"".b))].each do |out|
        expect(S.copy_to_socket(out, decoder.new(payload_file(bytes)), 0, bytes)).to eq(bytes)
        received = out.respond_to?(:to_io) ? Channels::Wrapper.garble(out.to_io.string) : out.string
        expect(received).to be_payload(Channels::Wrapper.garble(payload(bytes)))
      end
      expect { S.copy_to_socket(StringIO.new, decoder.new(payload_file(bytes)), 1, 2) }
        .to raise_error(ArgumentError, /\boffset\b/)
    end
  end

  describe "a write of its own" do
    def expect_exact(received, out)
      expect(S.copy_to_socket(out, payload_file(600_000), 0, 600_000, head: "head")).to eq(600_000)
      expect(received.join).to be_payload("head".b + payload(600_000))
    end

    {
      "is appended to" => [:itself, ->(given) { (given << "x") && nil }],
      "is emptied" => [:itself, ->(given) { given.clear && nil }],
      "is taken from" => [->(given) { given.byteslice(0, 100_000) }, ->(given) { given.slice!(0, 100_000).bytesize }]
    }.each do |what, (taken, change)|
      it "may change what it is given, which #{what}" do
        received = []
        out = Object.new
        out.define_singleton_method(:write) do |given|
          received << taken.to_proc.call(given).dup
          change.call(given)
        end
        expect_exact(received, out)
      end
    end

    it "may keep what it is given, of a StringIO too" do
      received = []
      out = Class.new(StringIO) do
        define_method(:write) do |given|
          received << given
          super(given)
        end
      end.new
      expect_exact(received, out)
    end
  end

  it "takes bytes for bytes, whatever encoding a source gives them" do
    source = Object.new
    text = "ß" * 1_000
    source.define_singleton_method(:pread) { |length, offset, buffer| buffer.replace(text.byteslice(offset, length)) }
    out = StringIO.new(String.new(encoding: Encoding::ISO_8859_1))
    expect(S.copy_to_socket(out, source, 0, 2_000, head: "\xFF".b)).to eq(2_000)
    expect(out.string.b).to eq("\xFF".b + text.b)
  end

  it "lets other fibers run between small responses, too", needs: :schedulers do
    turns = 0
    run_under(:fiber_minimal) do
      channel = channel(:unix)
      reader = channel.read(process: true, keep: false)
      file = payload_file(8_192)
      done = false
      Fiber.schedule do
        until done
          turns += 1
          sleep(0)
        end
      end
      1_024.times { S.copy_to_socket(channel.out, file, 0, 8_192) }
      done = true
      channel.finish
      reader.close
    end
    expect(turns).to be >= 7
  end

  it "holds no TLS record back on a Socket that is no TCPSocket", needs: :server do
    server = Cleanup.close(Socket.new(:INET, :STREAM))
    server.bind(Addrinfo.tcp("127.0.0.1", 0))
    server.listen(1)
    client = Cleanup.close(Socket.tcp("127.0.0.1", server.local_address.ip_port))
    wire = Cleanup.close(server.accept.first)
    nodelay = []
    ssl = OpenSSL::SSL::SSLSocket.allocate
    allow(ssl).to receive_messages(to_io: wire, closed?: false, sync: true)
    allow(ssl).to receive(:write_nonblock) do |data, **|
      nodelay << wire.getsockopt(:TCP, :NODELAY).bool
      data.bytesize
    end
    S.copy_to_socket(ssl, payload_file(size), 0, size)
    expect(nodelay.uniq).to eq([true])
    expect(wire.getsockopt(:TCP, :NODELAY).bool).to be(false)
    client.close
  end
end
