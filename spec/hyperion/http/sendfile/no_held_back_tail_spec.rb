# frozen_string_literal: true

# No response on a kept-alive TCP connection waits for a timer: neither Nagle's algorithm against a delayed
# acknowledgement (40 ms), nor MSG_MORE or SPLICE_F_MORE with nothing to follow (200 ms), holds back its last bytes.

require "spec_helper"
require "open3"
require "rbconfig"

module Tail
  SIZES = [1, 1_000, 1_448, 4_000, 8_192, 20_000, 65_536, 65_537, 100_000, 262_145,
           1 << 20, (1 << 20) + 100, (4 << 20) + 1, (9 << 20) + 17].freeze
  LARGEST = SIZES.max
  ENCRYPTED_WITHIN_STEP = SIZES.select { |size| size < 2 << 20 }.freeze # by a kernel in one system call
  HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\n"
  STEP = 0.037 # seconds of silence: the shortest of those timers is 40 ms
  IDLE = 0.025 # seconds of it with nothing to run: else it was work, or another guest of the host
  SHARE = 0.2 # of the responses: the kernel does not hold back every one of them
  ROUNDS = 3 # a timer steps in again in every one of them, what else runs on the machine doesn't

  # Set in the run of this file inside a network namespace, where a segment is as short as on a real network.
  SHORT_SEGMENTS = "HYPERION_SPEC_SHORT_SEGMENTS"
  NAMESPACE = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo mtu 1500 up && exec "$@"', "sh"].freeze

  class << self
    def short_segments?
      ENV.key?(SHORT_SEGMENTS)
    end

    def namespaces?
      return @namespaces if defined?(@namespaces)

      @namespaces = system(*NAMESPACE, "true", %i[out err] => File::NULL) == true
    end

    # Sparse, so that it costs no disk.
    def path
      @path ||= File.join(Payload.dir, "tail.bin").tap { |path| File.open(path, "wb") { |f| f.truncate(LARGEST) } }
    end

    # Few responses where each is long.
    def responses(size)
      return 10 if size < 1 << 20

      size < 2 << 20 ? 6 : 3
    end
  end

  # Asks for a response by one byte and reads it to its last, in a process of its own, so that what it sees is the
  # network and not Ruby's other threads. Reports the longest silence within each response, from when till when.
  class Client
    def initialize(channel, sizes, head)
      @head = head
      @report, report = IO.pipe.each { |io| Cleanup.close(io) }
      @pid = fork do
        ask(channel, sizes, report)
      ensure
        exit!(true)
      end
      Cleanup.later { stop }
      report.close
    end

    # { size => [[from, till], one per response] }
    def silences
      Marshal.load(@report.read) # rubocop:disable Security/MarshalLoad -- our own child
    end

    private

    def ask(channel, sizes, report)
      channel.wire.close
      buffer = String.new(capacity: 1 << 20)
      16.times { response(channel.peer, sizes.min, buffer) } # until the kernel delays acknowledgements
      report.write(Marshal.dump(sizes.to_h do |size|
        [size, Array.new(Tail.responses(size)) { response(channel.peer, size, buffer) }]
      end))
      report.close
    end

    def response(io, size, buffer)
      size += @head
      longest = [0, 0]
      before = now
      io.write(".")
      while size.positive?
        size -= io.readpartial(1 << 20, buffer).bytesize
        after = now
        longest = [before, after] if after - before > longest.last - longest.first
        before = after
      end
      longest
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    def stop
      Process.kill(:KILL, @pid)
      Process.wait(@pid)
    end
  end

  # What TCP_INFO says of a connection (linux/tcp.h).
  class Info
    def initialize(socket)
      @bytes = socket.getsockopt(:TCP, :INFO).data
    end

    def largest_segment = @bytes.unpack1("L", offset: 16)

    # Those with data, each of them once.
    def segments = @bytes.unpack1("L", offset: 156) - @bytes.unpack1("L", offset: 100)

    def self.available?
      listener = TCPServer.new("127.0.0.1", 0)
      listener.getsockopt(:TCP, :INFO).data.bytesize >= 160
    rescue SystemCallError, SocketError
      false
    ensure
      listener&.close
    end
  end
end

RSpec.describe Hyperion::Http::Sendfile do
  let(:file) { Cleanup.close(File.open(Tail.path, "rb")) }

  # Sends one response per byte that comes in.
  def serve(waiter, channel, sizes, source, head)
    run_under(waiter) do
      schedule = Array.new(16, sizes.min) + sizes.flat_map { |size| [size] * Tail.responses(size) }
      schedule.each do |size|
        channel.out.readpartial(1)
        S.copy_to_socket(channel.out, source, 0, size, head: head)
      end
    end
  end

  # { size => the longest silences of those responses that a timer may have stepped into }
  def held_back(kind, waiter, sizes, source: file, head: nil, **options)
    channel = channel(kind, **options)
    client = Tail::Client.new(channel, sizes, head.to_s.bytesize)
    channel.peer.to_io.close # the client's alone
    serve(waiter, channel, sizes, source, head)
    client.silences.transform_values { |silences| silences.select { |from, till| timer?(from, till) } }
          .select { |size, slow| slow.size >= Tail.responses(size) * Tail::SHARE }
  end

  def timer?(from, till)
    till - from > Tail::STEP && @idle.within(from, till) > Tail::IDLE
  end

  around do |example|
    saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
    ENV["HYPERION_HTTP_SPLICE"] = example.metadata[:splice]
    example.run
  ensure
    ENV["HYPERION_HTTP_SPLICE"] = saved
  end

  {
    "small or sendfile" => { kind: :tcp },
    "splice" => { kind: :tcp, splice: "1" },
    "from memory, O_NONBLOCK being off" => { kind: :tcp, nonblock: false },
    "from a source that is no file" => { kind: :tcp, memory: true },
    "TLS 1.2" => { kind: :tls12 },
    "TLS 1.3" => { kind: :tls13 },
    "kernel TLS" => { kind: :ktls13, missing: !KernelTls.available?, sizes: Tail::ENCRYPTED_WITHIN_STEP }
  }.reject { |_, setting| setting[:missing] }.each do |route, setting|
    kind, splice, memory = setting.values_at(:kind, :splice, :memory)
    options = setting.slice(:nonblock)

    context "by #{route}", splice: splice do
      before(:context) { @idle = IdleTime.new(File.join(Payload.dir, "idle")) }
      after(:context) { @idle.stop }

      [true, false].product([nil, Tail::HEAD], %i[thread fiber_async]).each do |nodelay, head, waiter|
        it "holds no tail back #{"with TCP_NODELAY " if nodelay}#{"with a head " if head}(#{waiter})" do
          source = memory ? Payload::Source.new("\0" * Tail::LARGEST) : file
          slow = setting.fetch(:sizes, Tail::SIZES)
          held = {}
          Tail::ROUNDS.times do
            held = held_back(kind, waiter, slow, source: source, head: head, nodelay: nodelay, **options)
            slow = held.keys
            break if slow.empty?
          end
          milliseconds = held.transform_values { |slow| slow.map { |from, till| ((till - from) * 1_000).round } }
          expect(held).to be_empty, "held back (bytes => longest silences, in ms): #{milliseconds}"
        end
      end
    end
  end

  # As gVisor and qemu-user are.
  it "is pushed where the kernel does not say what is unsent", needs: %i[linux queue] do
    refuse = Faults::Rule.new(:fail, Errno::ENOTTY::Errno, 0, Faults::ALWAYS)
    report = Faults.run(:deliver, size: 20_001, faults: { queued: refuse })
    expect(report[:fired][:queued]).to be >= 1
    expect(report[:journal].count { |entry| entry.call == :sockopt }).to eq(3) # TCP_NODELAY: asked, set, put back
  end

  # The segments that +size+ bytes of +head+ and body took on a connection just made.
  def segments(waiter, size, head, **options)
    channel = channel(:tcp, **options)
    reader = channel.read
    before = Tail::Info.new(channel.wire)
    copy_under(waiter, channel.out, file, 0, size, head: head)
    reader.wait_for_bytes(size + head.bytesize)
    [Tail::Info.new(channel.wire).segments - before.segments, before.largest_segment]
  end

  [nil, "1"].product([true, false], [true, false], %i[thread fiber_minimal]).each do |splice, nodelay, nonblock, waiter|
    context "with splice #{splice.inspect}, TCP_NODELAY #{nodelay}, O_NONBLOCK #{nonblock}, by #{waiter}",
            splice: splice, if: Tail::Info.available? do
      it "puts a head and 1,000 bytes into one segment" do
        expect(segments(waiter, 1_000, Tail::HEAD, nodelay: nodelay, nonblock: nonblock).first).to eq(1)
      end

      it "spends no segment on the head alone" do
        [8_192, 20_000].each do |size|
          head = "x" * 200
          count, largest = segments(waiter, size, head, nodelay: nodelay, nonblock: nonblock)
          expect(count).to be <= ((size + head.bytesize).to_f / largest).ceil
        end
      end
    end
  end

  describe "with segments of 1,448 bytes, as on a real network",
           :patience, limit: 300, if: !Tail.short_segments? && Tail.namespaces? do
    whiches = ["by small or sendfile", "by splice", "by from", "by TLS 1.2", "by TLS 1.3", "with splice"]
    whiches << "by kernel TLS" if KernelTls.available?
    whiches.each do |which|
      it "is as good (#{which})" do
        ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
        rspec = [Gem.bin_path("rspec-core", "rspec"), "--options", File::NULL, __FILE__, "--example", which]
        output, status = Open3.capture2e({ Tail::SHORT_SEGMENTS => "1" }, *Tail::NAMESPACE, *ruby, *rspec)
        expect(status).to be_success, output
        expect(output).to match(/^[1-9]\d* examples, 0 failures/)
      end
    end
  end

  unless Tail.short_segments? || Tail.namespaces?
    warn "no_held_back_tail_spec: no network namespace to be had here (unshare, ip, privileges): " \
         "segments of 1,448 bytes are not looked at"
  end
end
