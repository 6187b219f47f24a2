# frozen_string_literal: true

# The contract of the primitives: what one attempt returns, what it leaves alone, and that it runs without the GVL.

require "spec_helper"
require "open3"
require "rbconfig"
require "socket"
require "tempfile"

module Primitives
  # Those that answer [bytes, status], as calls that look alike.
  STATUS = %i[copy copy_splice copy_splice_into_pipe].freeze

  # Which of the library's system calls another Ruby thread could run beside. Every call that it makes stops in an
  # interposed function until a byte comes, which only another Ruby thread sends: with the GVL held, none could.
  module Gate
    INTERPOSER = <<~'C'
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <errno.h>
      #include <poll.h>
      #include <stdio.h>
      #include <stdlib.h>
      #include <string.h>
      #include <sys/socket.h>
      #include <sys/types.h>
      #include <unistd.h>

      static void
      gate(const char *name)
      {
          const char *fds = getenv("GATE");
          int knock, opened, report, err = errno;
          struct pollfd pollfd = {.events = POLLIN};
          char line[64];

          if (!fds || sscanf(fds, "%d,%d,%d", &knock, &opened, &report) != 3) return;
          if (write(knock, "k", 1) < 0) abort();
          pollfd.fd = opened;
          snprintf(line, sizeof(line), "%s:%s ", name, poll(&pollfd, 1, 2000) == 1 ? "free" : "held");
          if (write(report, line, strlen(line)) < 0) abort();
          if (pollfd.revents && read(opened, line, 1) < 0) abort();
          errno = err;
      }

      #define GATED(type, name, symbol, parameters, arguments)                       \
          type symbol parameters                                                     \
          {                                                                          \
              static type (*real) parameters;                                        \
              if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #symbol);      \
              gate(#name);                                                           \
              return real arguments;                                                 \
          }

      GATED(ssize_t, sendfile, sendfile64, (int o, int i, off64_t *at, size_t n), (o, i, at, n))
      GATED(ssize_t, splice, splice, (int i, off64_t *a, int o, off64_t *b, size_t n, unsigned f), (i, a, o, b, n, f))
      GATED(ssize_t, pread, pread64, (int i, void *b, size_t n, off64_t at), (i, b, n, at))
      GATED(ssize_t, pread, __pread64_chk, (int i, void *b, size_t n, off64_t at, size_t z), (i, b, n, at, z))
      GATED(ssize_t, send, send, (int o, const void *b, size_t n, int f), (o, b, n, f))
    C

    SCRIPT = <<~'RUBY'
      require "hyperion/http/sendfile"
      require "io/nonblock"
      require "socket"

      S = Hyperion::Http::Sendfile
      file = File.open(ARGV.fetch(0), "rb")
      out, _peer = UNIXSocket.pair # whose other end the garbage collector would close
      knocked, knock = IO.pipe
      opened, open = IO.pipe
      report_r, report = IO.pipe
      pipe = IO.pipe
      Thread.new { open.write(knocked.readpartial(1)) while true }
      Thread.pass until Thread.list.all? { |thread| thread == Thread.current || thread.status == "sleep" }

      {
        copy: -> { S.copy(out, file, 0, 10_000) },
        copy_small_buffered: -> { S.copy_small(out, file, 0, 1_000) },
        copy_small_with_head: -> { S.copy_small(out, file, 0, 10_000, "head") },
        copy_splice: -> { S.copy_splice(out, file, 0, 10_000) },
        copy_splice_into_pipe: -> { S.copy_splice_into_pipe(out, file, 0, 10_000, *pipe) },
        copy_to_a_blocking_socket: -> { out.nonblock = false; S.copy(out, file, 0, 10_000) }
      }.each do |name, call|
        ENV["GATE"] = [knock, opened, report].map(&:fileno).join(",")
        call.call
        ENV.delete("GATE")
        report.write("\n")
        puts "#{name} #{report_r.gets}"
      end
    RUBY

    # { name of the primitive => ["sendfile:free", ...] }
    def self.passages
      Interposed.run("gate", INTERPOSER, SCRIPT, Payload.path(65_536))
                .lines.to_h { |line| line.split.then { |name, *calls| [name.to_sym, calls] } }
    end
  end
end

RSpec.describe Hyperion::Http::Sendfile do
  let(:size) { 1_000_003 }
  let(:file) { payload_file(size) }
  let(:bytes) { payload(size) }

  # What the peer has by now. Over UNIX sockets and pipes that is all that was sent.
  def arrived(channel)
    received = +"".b
    while (chunk = channel.peer.read_nonblock(1 << 20, exception: false)).is_a?(String)
      received << chunk
    end
    received
  end

  # Until not a byte more goes in.
  def fill(channel)
    ["\0" * 4_096, "\0"].each do |filler|
      nil while channel.wire.write_nonblock(filler, exception: false) != :wait_writable
    end
  end

  # What the block answers to a full socket. TCP makes room again by itself, until its peer's side is full too: then
  # it is asked again.
  def when_full(channel, answer)
    nonblock = channel.wire.nonblock?
    Eventually.until("#{answer.inspect} from a full #{channel.kind}") do
      channel.wire.nonblock = true
      fill(channel)
      channel.wire.nonblock = nonblock
      yield == answer
    end
  end

  # An attempt that waited would never come back: nobody reads. The thread is ended if it does.
  def at_once(&block)
    thread = Thread.new(&block)
    thread.report_on_exception = false
    raise Eventually::NeverHappened, "the attempt waits" unless thread.join(5)

    thread.value
  ensure
    thread&.kill
  end

  # One attempt by any primitive of Primitives::STATUS; the pipe, where one is needed, is the example's.
  def attempt(primitive, out, source, offset, length, &block)
    @pipe ||= IO.pipe.each { |io| Cleanup.close(io) } if primitive == :copy_splice_into_pipe
    at_once { S.public_send(primitive, out, source, offset, length, *@pipe, &block) }
  end

  def queued_in_pipe
    Descriptors.ioctl(@pipe.first, Descriptors::FIONREAD)
  end

  Primitives::STATUS.each do |primitive|
    describe ".#{primitive}" do
      it "sends all of a region that fits, and says :done" do
        [[0, 1], [0, 8_192], [4_097, 20_001], [size - 3, 3]].each do |offset, length|
          Channels::KERNEL.each do |kind|
            channel = channel(kind)
            expect(attempt(primitive, channel.out, file, offset, length)).to eq([length, :done])
            channel.finish
            expect(channel.peer.read).to be_payload(bytes.byteslice(offset, length))
          end
        end
      end

      it "gives a block that takes one argument the bytes, be it a lambda" do
        told = []
        expect(attempt(primitive, channel(:unix).out, file, 0, 100, &->(bytes) { told << bytes })).to eq([100, :done])
        expect(told).to eq([100])
      end

      it "touches nothing for length 0" do
        channel = channel(:unix, small: true)
        expect(attempt(primitive, channel.out, file, 0, 0)).to eq([0, :done])
        expect(attempt(primitive, channel.out, file, size + 1, 0)).to eq([0, :done])
        expect(arrived(channel)).to eq("")
        fill(channel)
        expect(attempt(primitive, channel.out, file, 0, 0)).to eq([0, :done])
      end

      Channels::KERNEL.each do |kind|
        it "says :partial, and how much, when #{kind} fills up, and :eagain when it is full" do
          channel = channel(kind, small: true)
          more = nil
          sent, status = attempt(primitive, channel.out, file, 5, size - 5)
          expect(status).to eq(:partial)
          expect(sent).to be_between(1, size - 6)
          Eventually.until("a full #{kind}") do
            more, status = attempt(primitive, channel.out, file, 5 + sent, size - 5 - sent)
            sent += more
            status == :eagain
          end
          expect(more).to eq(0)

          received = +"".b
          Eventually.until("#{sent} bytes") { (received << arrived(channel)).bytesize >= sent }
          expect(received).to be_payload(bytes.byteslice(5, sent))
        end
      end

      it "goes on from where the bytes it told end" do
        channel = channel(:unix, small: true)
        received = +"".b
        sent = 0
        statuses = []
        until sent == size
          more, status = attempt(primitive, channel.out, file, sent, size - sent)
          sent += more
          statuses << status
          received << arrived(channel)
        end
        expect(received).to be_payload(bytes)
        expect(statuses.last).to eq(:done)
        expect(statuses[..-2]).to all(eq(:partial)).and(be_any)
      end

      it "says :eof with the bytes before it" do
        channel = channel(:unix)
        short = payload_file(10_000)
        expect(attempt(primitive, channel.out, short, 4_000, 10_000)).to eq([6_000, :eof])
        expect(arrived(channel)).to be_payload(payload(10_000).byteslice(4_000, 6_000))
        expect(attempt(primitive, channel.out, short, 9_999, 2)).to eq([1, :eof])
        expect(attempt(primitive, channel.out, short, 10_000, 1)).to eq([0, :eof])
        expect(attempt(primitive, channel.out, short, 70_000, 1)).to eq([0, :eof])
      end

      it "says :unsupported, and sends nothing, for a source without offsets and an O_APPEND destination" do
        channel = channel(:unix)
        fifo, feed = IO.pipe.each { |io| Cleanup.close(io) }
        feed.write("not to be read")
        expect(attempt(primitive, channel.out, fifo, 0, 5)).to eq([0, :unsupported])
        expect(arrived(channel)).to eq("")
        expect(fifo.read_nonblock(100)).to eq("not to be read")

        append = private_payload_file(10, "a+b")
        expect(attempt(primitive, append, file, 0, 5)).to eq([0, :unsupported])
        expect(append.size).to eq(10)
      end

      it "raises what the kernel says when no byte moved" do
        channel = channel(:unix)
        channel.peer.close
        expect { attempt(primitive, channel.out, file, 0, 100) }.to raise_error(Errno::EPIPE)
      end

      it "takes numbers of descriptors, a Tempfile and what leads to a file" do
        temporary = Tempfile.new
        Cleanup.later { temporary.close! }
        temporary.binmode
        temporary.write(payload(8_192)) # still in Ruby's buffer
        leads = Struct.new(:to_io).new(payload_file(8_192))
        [temporary, leads, payload_file(8_192).fileno].each do |source|
          channel = channel(:unix)
          expect(attempt(primitive, channel.out.fileno, source, 10, 8_000)).to eq([8_000, :done])
          expect(arrived(channel)).to be_payload(payload(8_192).byteslice(10, 8_000))
        end
        expect(temporary.pos).to eq(8_192)
      end

      it "refuses a destination that only leads to a socket, and sends nothing" do
        channel = channel(:wrapper)
        wrapped = channel(:tls13)
        expect { attempt(primitive, channel.out, file, 0, 10) }.to raise_error(TypeError, /\bout\b/)
        expect { attempt(primitive, wrapped.out, file, 0, 10) }.to raise_error(TypeError, /\bout\b/)
        [channel, wrapped].each { |each| each.wire.close }
        expect(channel.peer.read).to eq("")
        expect(wrapped.peer.to_io.read).not_to include(bytes.byteslice(0, 10))
      end

      it "leaves the file's position alone" do
        file.seek(777)
        expect(attempt(primitive, channel(:unix).out, file, 10, 10_000)).to eq([10_000, :done])
        expect(file.pos).to eq(777)
        expect(file.readpartial(4)).to eq(bytes.byteslice(777, 4))
      end

      it "leaves O_NONBLOCK as it was" do
        [true, false].each do |nonblock|
          channel = channel(:unix, nonblock: nonblock)
          attempt(primitive, channel.out, file, 0, 10)
          expect(channel.out.nonblock?).to be(nonblock)
        end
      end
    end
  end

  Channels::KERNEL.each do |kind|
    it "never waits for #{kind} in blocking mode either" do
      channel = channel(kind, small: true, nonblock: false)
      when_full(channel, [0, :eagain]) { attempt(:copy, channel.out, file, 0, size) }
      when_full(channel, 0) { at_once { S.copy_small(channel.out, file, 0, 60_000) } }
      when_full(channel, 0) { at_once { S.copy_small(channel.out, file, 0, 1_000, "head") } }
      %i[copy_splice copy_splice_into_pipe].each do |primitive|
        expect(attempt(primitive, channel.out, file, 0, size)).to eq([0, :unsupported]).or eq([0, :eagain])
      end
    end

    it "never waits while it fills #{kind} in blocking mode" do
      channel = channel(kind, small: true, nonblock: false)
      sent, status = attempt(:copy, channel.out, file, 0, size)
      expect(status).to eq(:partial)
      expect(sent).to be_between(1, size - 1)
    end
  end

  describe ".copy_splice" do
    it "opens its own pipe and closes it, however it ends" do
      channel = channel(:unix, small: true)
      closed = channel(:unix).tap { |each| each.peer.close }
      fifo, = IO.pipe.each { |io| Cleanup.close(io) }
      file # opened before the count
      expect do
        attempt(:copy_splice, channel.out, file, 0, size) # :partial
        attempt(:copy_splice, channel.out, file, 0, size) # :eagain
        attempt(:copy_splice, channel.out, fifo, 0, 10)
        expect { attempt(:copy_splice, closed.out, file, 0, 10) }.to raise_error(Errno::EPIPE)
        expect { S.copy_splice(channel.out, file, -1, 10) }.to raise_error(ArgumentError)
        expect { S.copy_splice(channel.out, nil, 0, 10) }.to raise_error(TypeError)
      end.not_to leak_fds
    end
  end

  describe ".copy_splice_into_pipe" do
    it "counts what reached the socket, drains what stayed in the pipe first, and fills only behind it" do
      channel = channel(:unix, small: true)
      sent, = attempt(:copy_splice_into_pipe, channel.out, file, 0, size)
      held = queued_in_pipe
      expect(held).to be > 0
      expect(arrived(channel).bytesize).to eq(sent)

      # From another file: only what the pipe held can be of the first.
      other = payload_file(1_000_003 - 1)
      more, = attempt(:copy_splice_into_pipe, channel.out, other, sent, held)
      received = arrived(channel)
      expect(more).to be > 0
      expect(received).to be_payload(bytes.byteslice(sent, more))
    end

    it "drains what is queued before it says :eof" do
      short = private_payload_file(60_000)
      channel = channel(:pipe, small: true)
      sent, status = attempt(:copy_splice_into_pipe, channel.out, short, 0, 70_000)
      expect(status).to eq(:partial)
      received = arrived(channel)
      statuses = []
      until statuses.last == :eof
        more, status = attempt(:copy_splice_into_pipe, channel.out, short, sent, 70_000 - sent)
        sent += more
        statuses << status
        received << arrived(channel)
      end
      expect(received).to be_payload(payload(60_000))
      expect(sent).to eq(60_000)
    end
  end

  describe ".copy_small" do
    [1, 1_000, 3_072, 3_073, 8_192, 8_193, 32_768, 32_769, 65_536].each do |length|
      it "sends #{length} bytes and returns their number, with a head and without" do
        head = "h\u00e9ad\r\n"
        [[], [nil], [head], [head.dup.freeze], ["x" * 9_000]].each do |rest|
          channel = channel(:tcp)
          before = rest.first.to_s.b
          expect(at_once { S.copy_small(channel.out, file, 17, length, *rest) }).to eq(before.bytesize + length)
          channel.finish
          expect(channel.peer.read).to be_payload(before + bytes.byteslice(17, length))
          expect(rest.first.to_s.b).to eq(before)
        end
      end
    end

    it "returns 0 for length 0, and with a head sends that alone" do
      channel = channel(:unix)
      expect(S.copy_small(channel.out, file, 0, 0)).to eq(0)
      expect(S.copy_small(channel.out, file, 0, 0, "")).to eq(0)
      expect(arrived(channel)).to eq("")
      expect(S.copy_small(channel.out, file, 0, 0, "h\u00e9")).to eq(3)
      expect(arrived(channel)).to eq("h\u00e9".b)
    end

    Channels::KERNEL.each do |kind|
      it "returns 0 when #{kind} is full" do
        channel = channel(kind, small: true)
        [1, 3_000, 60_000].product([nil, "head"]).each do |length, head|
          when_full(channel, 0) { at_once { S.copy_small(channel.out, file, 0, length, head) } }
        end
        when_full(channel, 0) { at_once { S.copy_small(channel.out, file, 0, 0, "head") } }
      end
    end

    it "returns a short count, of head and body together, when the socket fills up" do
      channel = channel(:pipe, small: true) # holds 4,096 bytes
      expect(at_once { S.copy_small(channel.out, file, 0, 60_000) }).to eq(4_096)
      expect(arrived(channel)).to be_payload(bytes.byteslice(0, 4_096))
      expect(at_once { S.copy_small(channel.out, file, 0, 60_000, "x" * 5_000) }).to eq(4_096)
      expect(arrived(channel)).to eq("x" * 4_096)

      channel = channel(:unix, small: true)
      head = "x" * 3_000
      [1_000, 60_000].each do |length|
        sent = at_once { S.copy_small(channel.out, file, 0, length, head) }
        received = arrived(channel)
        expect(received).to be_payload((head.b + bytes).byteslice(0, sent))
        expect(sent).to be <= 3_000 + length
      end
    end

    it "returns what there was when the file ends, and 0 at its end" do
      short = payload_file(10_000)
      channel = channel(:unix)
      expect(S.copy_small(channel.out, short, 9_000, 2_000)).to eq(1_000)
      expect(S.copy_small(channel.out, short, 1_000, 60_000)).to eq(9_000)
      expect(arrived(channel)).to be_payload(payload(10_000).byteslice(9_000..) + payload(10_000).byteslice(1_000..))
      expect(S.copy_small(channel.out, short, 10_000, 1)).to eq(0)
      expect(S.copy_small(channel.out, short, 10_000, 60_000)).to eq(0)
      expect(S.copy_small(channel.out, short, 9_000, 60_000, "head")).to eq(1_004)
    end

    it "sends from memory where the kernel will not move the bytes itself" do
      append = private_payload_file(10, "a+b")
      expect(S.copy_small(append, file, 0, 60_000)).to eq(60_000)
      expect(append.pread(60_000, 10)).to be_payload(bytes.byteslice(0, 60_000))
    end

    it "raises what pread says of a source without offsets" do
      fifo, feed = IO.pipe.each { |io| Cleanup.close(io) }
      feed.write("not to be read")
      channel = channel(:unix)
      [10, 10_000].each { |length| expect { S.copy_small(channel.out, fifo, 0, length) }.to raise_error(Errno::ESPIPE) }
      expect(arrived(channel)).to eq("")
    end

    it "names the threshold that a length is over" do
      channel = channel(:unix)
      expect { S.copy_small(channel.out, file, 0, 65_537) }.to raise_error(ArgumentError, /SMALL_FILE_THRESHOLD/)
      expect { S.copy_small(channel.out, file, 0, 65_537, "x") }.to raise_error(ArgumentError, /SMALL_FILE_THRESHOLD/)
      expect(arrived(channel)).to eq("")
    end

    it "takes numbers and a Tempfile, and refuses a destination that only leads to a socket" do
      temporary = Tempfile.new
      Cleanup.later { temporary.close! }
      temporary.write("abcdefgh")
      channel = channel(:unix)
      expect(S.copy_small(channel.out.fileno, temporary, 2, 5)).to eq(5)
      expect(S.copy_small(channel.out, file.fileno, 0, 5)).to eq(5)
      expect(arrived(channel)).to eq("cdefg".b + bytes.byteslice(0, 5))
      wrapper = channel(:wrapper)
      expect { S.copy_small(wrapper.out, file, 0, 5) }.to raise_error(TypeError, /\bout\b/)
      expect { S.copy_small(channel.out, file, 0, 5, :head) }.to raise_error(TypeError, /\bhead\b/)
      expect(arrived(wrapper) + arrived(channel)).to eq("")
    end

    it "leaves the file's position alone" do
      file.seek(777)
      [1_000, 60_000].each { |length| S.copy_small(channel(:unix).out, file, 0, length) }
      expect(file.pos).to eq(777)
    end
  end

  describe ".fadvise_sequential" do
    it "is :ok for a file, with an offset and without" do
      expect(S.fadvise_sequential(file, size)).to eq(:ok)
      expect(S.fadvise_sequential(file, 1_000, 5)).to eq(:ok)
      expect(S.fadvise_sequential(file.fileno, size)).to eq(:ok)
      expect(S.fadvise_sequential(Tempfile.new.tap { |each| Cleanup.later { each.close! } }, 1)).to eq(:ok)
    end

    it "is :error for what has no pages to read ahead" do
      expect(S.fadvise_sequential(channel(:pipe).peer, 1)).to eq(:error)
    end

    it "is :noop for a length that is not positive" do
      expect([0, -1, -(2**40), -(2**70)].map { |length| S.fadvise_sequential(file, length) }).to all(eq(:noop))
    end

    it "names a bad argument" do
      expect { S.fadvise_sequential(nil, 1) }.to raise_error(TypeError)
      expect { S.fadvise_sequential(file, 1.5) }.to raise_error(TypeError, /\blen\b/)
      expect { S.fadvise_sequential(file, 1, -1) }.to raise_error(ArgumentError, /\boffset\b/)
      expect { S.fadvise_sequential(file, 2**63) }.to raise_error(RangeError, /\blen\b/)
      expect { S.fadvise_sequential(file.tap(&:close), 1) }.to raise_error(IOError)
    end
  end

  it "says what it is built on", if: RUBY_PLATFORM.include?("linux") do
    expect(S.platform_tag).to eq(:linux)
    expect(S.supported?).to be(true)
    expect(S.splice_supported?).to be(true)
  end

  it "says how much copy_small takes" do
    expect(S.small_file_threshold).to eq(65_536)
  end

  describe "the GVL", if: Interposed.available? do
    # A hint that returns at once is not worth a hand-over.
    it "is free during every system call that moves bytes or may read a disk" do
      passages = Primitives::Gate.passages
      expected = {
        copy: %w[sendfile],
        copy_small_buffered: %w[pread send],
        copy_small_with_head: %w[send sendfile],
        copy_splice: %w[splice splice],
        copy_splice_into_pipe: %w[splice splice],
        copy_to_a_blocking_socket: %w[pread send]
      }
      expect(passages).to eq(expected.transform_values { |calls| calls.map { |name| "#{name}:free" } })
    end
  end
end
