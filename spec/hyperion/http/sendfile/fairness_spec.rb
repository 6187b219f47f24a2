# frozen_string_literal: true

# What a transfer leaves to others: turns to other fibers, the GVL to other threads, and no garbage to the collector.

require "spec_helper"
require "open3"
require "rbconfig"

module Fairness
  REGION = 24 << 20
  STEP = 4 << 20 # what may go out between two turns of the other fibers
  SOL_SNDBUFFORCE = 32
  ROOM = 512 << 20 # for all of REGION at once, with the kernel's bookkeeping

  # By what the bytes go, and what is given as destination and source.
  ROUTES = {
    "sendfile" => {},
    "splice" => { splice: "1" },
    "memory, O_NONBLOCK being off" => { nonblock: false },
    "a source that is no file" => { memory: true },
    "TLS 1.3" => { kind: :tls13 },
    "a wrapper" => { kind: :wrapper },
    "a writer" => { kind: :writer }
  }.freeze

  class << self
    # Sparse, so that it costs no disk.
    def path
      @path ||= File.join(Payload.dir, "fair.bin").tap { |path| File.open(path, "wb") { |f| f.truncate(REGION) } }
    end

    def zeros
      @zeros ||= ("\0" * REGION).freeze
    end

    # Whether a socket can be given room for everything, so that it is writable at any time.
    def room?
      return @room if defined?(@room)

      @room = UNIXSocket.pair.then do |a, b|
        make_room(a)
      rescue SystemCallError
        false
      ensure
        [a, b].each(&:close)
      end
    end

    def make_room(socket)
      socket.setsockopt(Socket::SOL_SOCKET, SOL_SNDBUFFORCE, [ROOM].pack("i"))
      true
    end
  end

  # Any use of a scheduler is recorded and refused: for what must not know that there is one.
  class Untouchable
    HOOKS = %i[io_wait io_read io_write io_pread io_pwrite io_select io_close kernel_sleep block unblock timeout_after
               address_resolve process_wait fiber_interrupt blocking_operation_wait yield].freeze

    attr_reader :uses

    def initialize
      @uses = []
    end

    HOOKS.each do |hook|
      define_method(hook) do |*|
        @uses << hook
        raise "#{hook} of the scheduler was called"
      end
    end

    def fiber(&block)
      Fiber.new(blocking: false, &block).tap(&:resume)
    end

    def run; end

    def close; end
  end
end

RSpec.describe Hyperion::Http::Sendfile, needs: :schedulers do
  around do |example|
    saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
    ENV["HYPERION_HTTP_SPLICE"] = example.metadata[:splice]
    example.run
  ensure
    ENV["HYPERION_HTTP_SPLICE"] = saved
  end

  let!(:file) { Cleanup.close(File.open(Fairness.path, "rb")) } # not in the fiber, where it may be offloaded

  # A destination with room for the whole region: it is writable whenever it is asked.
  def always_writable(setting)
    kind = setting.fetch(:kind, :unix)
    return Channels::Writer.new if kind == :writer

    out, peer = UNIXSocket.pair.each { |io| Cleanup.close(io) }
    Fairness.make_room(out)
    out.nonblock = setting.fetch(:nonblock, true)
    case kind
    when :wrapper then Channels::Wrapper.new(out)
    when :tls13 then tls_over(out, peer)
    else out
    end
  end

  def tls_over(out, peer)
    context = OpenSSL::SSL::SSLContext.new
    context.add_certificate(Certificate.x509, Certificate.key)
    server = OpenSSL::SSL::SSLSocket.new(out, context)
    client = OpenSSL::SSL::SSLSocket.new(peer)
    connecting = Thread.new { client.connect }
    server.accept
    connecting.join
    server
  end

  Fairness::ROUTES.each do |route, setting|
    context "by #{route}", splice: setting[:splice] do
      let(:source) { setting[:memory] ? Payload::Source.new(Fairness.zeros) : file }

      Waiters::FIBERS.each do |waiter|
        it "gives other fibers a turn for every MiB to an always writable destination (#{waiter})",
           if: Fairness.room? do
          region = route == "a wrapper" ? 4 << 20 : Fairness::REGION # slow to garble
          out = always_writable(setting)
          turns = said = sent_at_turn = 0
          longest = 0
          run_under(waiter) do
            beside = Fiber.schedule do
              until said == region
                turns += 1
                sent_at_turn = @sent.to_i
                sleep(0)
              end
            end
            said = S.copy_to_socket(out, source, 0, region) do |sent|
              longest = [longest, sent - sent_at_turn].max
              @sent = sent
            end
            beside
          end
          expect(said).to eq(region)
          expect(turns).to be >= (region / Fairness::STEP) - 1
          expect(longest).to be <= 2 * Fairness::STEP # one round of the event loop takes them in any order
        end
      end

      it "gives other fibers turns between small bodies to an always writable destination", if: Fairness.room? do
        out = always_writable(setting)
        turns = 0
        run_under(:fiber_minimal) do
          done = false
          beside = Fiber.schedule do
            until done
              turns += 1
              sleep(0)
            end
          end
          (Fairness::REGION / 60_000).times { S.copy_to_socket(out, source, 0, 60_000) }
          done = true
          beside
        end
        expect(turns).to be >= (Fairness::REGION / Fairness::STEP) - 1
      end

      it "waits through the scheduler, while others run" do
        next if setting[:kind] == :writer # which never waits

        channel = channel(setting.fetch(:kind, :tcp), small: true, nonblock: setting.fetch(:nonblock, true))
        reader = channel.read(:stalled)
        turns = 0
        sender = start_under(:fiber_minimal) do
          done = false
          Fiber.schedule do
            until done
              turns += 1
              sleep(0.001)
            end
          end
          S.copy_to_socket(channel.out, source, 0, 2_000_003).tap { done = true }
        end
        eventually("a wait for room") { sender.scheduler&.waits&.any? { |wait| wait.io.to_io == channel.wire } }
        before = turns
        eventually("turns meanwhile") { turns > before + 20 }
        expect(sender).not_to be_done
        reader.go(:greedy)
        expect(sender.value).to eq(2_000_003)
        channel.finish
        expect(reader.wait.bytes).to eq(2_000_003)
        expect(sender.scheduler.waits.map(&:events)).to all(eq(IO::WRITABLE))
        expect(sender.scheduler.waits.map { |wait| wait.io.to_io }).to all(equal(channel.wire))
      end

      [false, true].product([nil, 5]).each do |buffered, timeout|
        it "never calls the scheduler in copy_to_socket_blocking#{", sync = false" if buffered}" \
           "#{", with a timeout" if timeout}" do
          kind = setting.fetch(:kind, :tcp)
          next if buffered && %i[writer wrapper].include?(kind) # nothing of theirs is buffered

          channel = channel(kind, small: true, nonblock: setting.fetch(:nonblock, true))
          reader = channel.read(kind == :writer ? :greedy : :slow, slow_for: 65_536)
          scheduler = Fairness::Untouchable.new
          options = timeout ? { timeout: timeout } : {}
          sent = []
          sender = start_under(:thread) do
            Fiber.set_scheduler(scheduler)
            Fiber.schedule do
              if buffered
                channel.out.sync = false
                channel.out.write("before")
              end
              [100, 60_000, 300_007].each do |size|
                sent << S.copy_to_socket_blocking(channel.out, source, 0, size, head: "head", **options)
              end
              channel.out.sync = true if buffered
            end
          end
          sender.value
          expect(sent).to eq([100, 60_000, 300_007])
          expect(scheduler.uses).to be_empty
          channel.finish
          expect(reader.wait.bytes).to eq(360_107 + 12 + (buffered ? 6 : 0))
        end
      end
    end
  end

  # A response by HTTP/2 is many calls. None of these has to wait.
  Waiters::FIBERS.product([16_384, 200_000], %i[file string]).each do |waiter, len, source|
    it "gives other fibers turns between DATA frames of #{len} bytes from a #{source} (#{waiter})",
       if: Fairness.room? do
      out = always_writable({})
      source = source == :file ? file : Fairness.zeros
      calls = Fairness::REGION / len
      turns = 0
      run_under(waiter) do
        done = false
        beside = Fiber.schedule do
          until done
            turns += 1
            sleep(0)
          end
        end
        calls.times { S.copy_data_frames(out, source, 0, len, stream_id: 1) }
        done = true
        beside
      end
      expect(turns).to be >= (Fairness::REGION / Fairness::STEP) - 1
    end
  end

  it "gives up the GVL once per transfer in a plain thread, the waiting included", if: Regions.available? do
    counts = Regions.counts(Fairness.path)
    expect(counts.size).to eq(48)
    expect(counts.reject { |_, count| count == 1 }).to be_empty
  end

  describe "objects" do
    let(:head) { "HTTP/1.1 200 OK\r\nx-name: h\u00e9\r\n\r\n" } # more bytes than characters
    let(:out) { channel(:tcp).tap { |each| each.read(process: true, keep: false) }.out }

    # Of this thread's making alone: the reader is another process, and what else there is sleeps.
    # Keywords stand in the call, since a splat makes a Hash of its own.
    def objects_of(calls, size, head: nil, timeout: nil)
      out = self.out
      source = file
      GC.start
      GC.disable
      before = made = nil
      [3, calls].each do |times| # warm first
        before = GC.stat(:total_allocated_objects)
        if timeout
          S.copy_to_socket(out, source, 0, size, timeout: timeout) while (times -= 1) >= 0
        else
          S.copy_to_socket(out, source, 0, size, head: head) while (times -= 1) >= 0
        end
        made = GC.stat(:total_allocated_objects) - before
      end
      made
    ensure
      GC.enable
    end

    [1, 1_000, 8_192].each do |size|
      # A call that finds the socket full has to wait, and makes two; that is not every call.
      it "are none for #{size} bytes" do
        expect(objects_of(50, size)).to be < 25
        expect(objects_of(50, size, head: head)).to be < 25
      end
    end

    [60_000, 65_536, 65_537, 262_144, 1 << 20, 10 << 20].each do |size|
      it "are four at most for #{size} bytes" do
        [{}, { head: head }, { timeout: 30 }].each do |options|
          expect(objects_of(5, size, **options)).to be <= 5 * 4
        end
      end
    end
  end
end
