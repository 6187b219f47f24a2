# frozen_string_literal: true

# timeout: counts the seconds in which no byte moves, and nothing else does.

require "spec_helper"
require_relative "every_route"

# For a reader that takes something, and yet less than it is sent, every 0.2 s.
class Nibbler
  EVERY = 0.2

  attr_reader :bites

  def initialize(peer, at_a_time)
    @peer = peer
    @bites = 0
    @received = +"".b
    @thread = Thread.new { nibble(at_a_time) }
    Cleanup.later { @thread.kill.join }
  end

  # So far; more is on its way.
  def received
    @received.dup
  end

  private

  def nibble(at_a_time)
    loop do
      @received << @peer.readpartial(at_a_time)
      @bites += 1
      sleep EVERY
    end
  rescue IOError, OpenSSL::SSL::SSLError
    nil # the sender has given up, as the example will see
  end
end

RSpec.describe Hyperion::Http::Sendfile::TimeoutError do
  include EveryRoute

  let(:head) { "HTTP/1.1 200 OK\r\nx-name: h\u00e9\r\n\r\n" }

  def expect_timed_out(sending, expected:, after:)
    error = sending.error
    expect(error).to be_a(described_class), "#{sending}: #{error.inspect}"
    expect(error.bytes_expected).to eq(expected), "#{sending}: #{error.bytes_expected.inspect} bytes expected"
    expect(sending.seconds).to be_between(after, after + Eventually::LATE), "#{sending}: #{sending.seconds} s"
  end

  # What arrives is the head and exactly what the error counts of the region.
  def expect_counted(sending, content, head: "")
    expect(sending.received).to be_payload(head.b + content.byteslice(0, sending.error.bytes_sent))
  end

  def start_all(routes, timeout:, **options)
    routes.product(Waiters::ALL).map do |route, waiter|
      start_sending(route, waiter, source_for(route), 0, route.bytes, timeout: timeout, **options)
    end
  end

  EveryRoute::ALL.group_by(&:name).each do |name, routes|
    context "with #{name}" do
      it "ends a transfer whose reader stalls, with the right counts" do
        start_all(routes, timeout: 0.5, head: head).each(&:cut).each do |sending|
          expect_timed_out(sending, expected: sending.route.bytes, after: 0.5)
          next if sending.route.kind == :wrapper # its write has told no one how far it came

          expect_counted(sending, payload(sending.route.bytes), head: head)
          next if %i[pipe unix].include?(sending.route.kind) # one page, one segment: the head fills it

          expect(sending.error.bytes_sent).to be_positive, sending.to_s
        end
      end

      it "ends a transfer whose head is stuck" do
        large = "x-large: #{"h\u00e9" * 200_000}\r\n\r\n"
        start_all(routes, timeout: 0.3, head: large).each(&:cut).each do |sending|
          expect_timed_out(sending, expected: sending.route.bytes, after: 0.3)
          expect(sending.error.bytes_sent).to eq(0)
          expect(large.b).to start_with(sending.received)
        end
      end
    end
  end

  context "without a timeout", :patience do
    routes = EveryRoute::ALL.reject { |route| route.kind == :wrapper && !Needs.met?(:sleeping_write) }

    it "waits as long as the reader stalls, on every route" do
      sendings = routes.product(Waiters::ALL).map.with_index do |(route, waiter), index|
        options = index.even? ? { timeout: nil } : {}
        start_sending(route, waiter, source_for(route), 0, route.bytes, **options)
      end
      sendings.each { |sending| await_backpressure(sending.channel, sending.sender) }
      expect(cpu_seconds { sleep 0.7 }).to be < 0.35
      sendings.each do |sending|
        sending.reader.go(:greedy)
        expect(sending.error).to eq(sending.source.size)
        expect(sending.received).to be_payload(payload(sending.source.size))
      end
    end
  end

  [Float::INFINITY, 1e300].each do |seconds|
    it "takes #{seconds} for no limit" do
      %i[unix tls13].product(Waiters::ALL).each do |kind, waiter|
        channel = channel(kind)
        reader = channel.read
        channel.out.sync = false
        channel.out.write("held back ")
        expect(copy_under(waiter, channel.out, payload_file(100_000), timeout: seconds)).to eq(100_000)
        channel.finish
        expect(reader.result).to be_payload("held back ".b + payload(100_000))
      end
    end
  end

  it "covers what an interrupted write has left in the buffer of a TLS connection", needs: :openssl do
    senders = Waiters::ALL.map do |waiter|
      channel = channel(:tls13, small: true)
      channel.read(:stalled)
      writer = start_under(:thread) { channel.out.write(payload(1_000_003)) }
      await_backpressure(channel, writer)
      writer.stop
      start_sender(waiter, channel.out, payload_file(100), 0, 100, timeout: 0.3)
    end
    senders.each do |sender|
      error, seconds = sender.value
      expect(error).to be_a(described_class).and have_attributes(bytes_sent: 0, bytes_expected: 100)
      expect(seconds).to be_between(0.3, 0.3 + Eventually::LATE)
    end
  end

  context "with a reader that takes something every 0.2 s", :patience do
    # The least that makes room for more, with small buffers.
    at_a_time = { tcp: 4_096, pipe: 4_096, unix: 65_536, tls12: 16_384, tls13: 16_384 }
    nibbled = EveryRoute::ALL.select { |route| route.bytes / at_a_time.fetch(route.kind, route.bytes) > 8 }

    it "goes on, on every route" do
      under_way = nibbled.product(Waiters::ALL).map do |route, waiter|
        use_splice(route.splice)
        channel = open_channel(route)
        sender = start_sender(waiter, channel.out, source_for(route), 0, route.bytes, timeout: 1.0)
        end_by_itself(sender) { channel.peer.to_io.close }
        [route, waiter, sender, Nibbler.new(channel.peer, at_a_time[route.kind])]
      end
      ended = under_way.select do |_, _, sender, nibbler|
        eventually("8 bites") { nibbler.bites >= 8 || sender.done? }
        sender.done?
      end
      expect(ended.map { |route, waiter, sender| "#{route} by #{waiter}: #{sender.value.first}" }).to be_empty
      under_way.each do |route, _, _, nibbler|
        received = nibbler.received
        expect(received).to be_payload(payload(route.bytes).byteslice(0, received.bytesize))
      end
    end

    it "goes on where a TLS record takes longer than the timeout", needs: :queue do
      nibblers = Waiters::ALL.map do |waiter|
        channel = channel(:tls13, small: true)
        sender = start_sender(waiter, channel.out, payload_file(1_000_003), timeout: 0.7)
        [waiter, sender, Nibbler.new(channel.peer.to_io, 4_096)]
      end
      nibblers.each do |waiter, sender, nibbler|
        eventually("8 bites") { nibbler.bites >= 8 || sender.done? }
        expect(sender).not_to be_done, -> { "#{waiter}: #{sender.value.first.inspect}" }
      end
    end

    it "goes on where a write of one byte takes 0.2 s" do
      writer = Struct.new(:taken) do
        def write(data)
          sleep 0.2
          taken << data.byteslice(0)
          1
        end
      end
      senders = Waiters::ALL.to_h do |waiter|
        out = writer.new(+"".b)
        [start_sender(waiter, out, StringIO.new("12345"), 0, 5, timeout: 0.5), out]
      end
      senders.each { |sender, out| expect([sender.value.first, out.taken]).to eq([5, "12345"]) }
    end
  end

  context "with a connection that says it is writable and takes nothing" do
    def stuck(primitive, waiter)
      allow(S).to receive(primitive).and_return([0, :eagain])
      out = channel(:tcp).out
      start_sender(waiter, out, payload_file(1_000_003), 0, 1_000_003, timeout: 0.5)
    end

    def expect_no_extension(senders)
      expect(cpu_seconds { senders.each(&:value) }).to be < 0.25
      senders.each do |sender|
        error, seconds = sender.value
        expect(error).to be_a(described_class).and have_attributes(bytes_sent: 0, bytes_expected: 1_000_003)
        expect(seconds).to be_between(0.5, 0.5 + Eventually::LATE)
      end
    end

    it "times out all the same", needs: %i[sendfile page_cache] do
      expect_no_extension(Waiters::FIBERS.map { |waiter| stuck(:copy, waiter) })
    end

    it "asks it now and then, where the waiting is done in C", needs: :linux do
      faults = { sendfile: Faults::Rule.new(:fail, Errno::EAGAIN::Errno, 0, Faults::ALWAYS) }
      %i[thread blocking_in_fiber].each do |waiter|
        report = Faults.run(:deliver, size: 1_000_003, waiter: waiter, timeout: 0.3, faults: faults)
        expect(report[:error]).to include(class: described_class.name, sent: 0, expected: 1_000_003)
        expect(report[:fired][:sendfile]).to be_between(3, 60)
      end
    end

    it "times out all the same by splice", needs: :splice do
      use_splice(true)
      expect_no_extension(Waiters::ALL.map { |waiter| stuck(:copy_splice_into_pipe, waiter) })
    end
  end

  context "with what Ruby has buffered for the destination stuck" do
    def stuck(waiter, timeout)
      channel = channel(:unix, small: true) # TCP makes room by itself, as long as its peer's side has some
      nil until channel.out.write_nonblock("x" * 65_536, exception: false) == :wait_writable
      channel.out.sync = false
      channel.out.write("buffered")
      start_sender(waiter, channel.out, payload_file(1_500), 0, 1_500, head: head, timeout: timeout)
    end

    it "ends with the right counts" do
      Waiters::ALL.map { |waiter| [waiter, stuck(waiter, 0.4)] }.each do |waiter, sender|
        error, seconds = sender.value
        expect(error).to be_a(described_class), "#{waiter}: #{error.inspect}"
        expect(error).to have_attributes(bytes_sent: 0, bytes_expected: 1_500), "#{waiter}: #{error.inspect}"
        expect(seconds).to be_between(0.4, 0.4 + Eventually::LATE), "#{waiter}: #{seconds} s"
      end
    end
  end

  context "with a write of the destination's own that hangs" do
    it "ends the transfer, and the write" do
      hanging = Struct.new(:ended) do
        def write(_data)
          Queue.new.pop
        ensure
          self.ended = true
        end
      end
      senders = Waiters::ALL.map do |waiter|
        out = hanging.new(false)
        [waiter, out, start_sender(waiter, out, payload_file(8_192), 0, 8_192, timeout: 0.3)]
      end
      senders.each do |waiter, out, sender|
        error, seconds = sender.value
        expect(error).to be_a(described_class), "#{waiter}: #{error.inspect}"
        expect(error).to have_attributes(bytes_sent: 0, bytes_expected: 8_192)
        expect(seconds).to be_between(0.3, 0.3 + Eventually::LATE)
        eventually("the write of #{waiter} to end") { out.ended } # a thread is killed, and not waited for
      end
    end

    it "is no timeout when an outer Timeout ends it" do
      # A scheduler without timeout_after leaves Timeout no fiber to raise in.
      (Waiters::ALL - %i[fiber_minimal blocking_in_fiber]).each do |waiter|
        out = channel(:wrapper, small: true).out
        file = payload_file(1_000_003)
        sender = start_under(waiter) { Timeout.timeout(0.1) { S.copy_to_socket(out, file, timeout: 9) } }
        expect { sender.value }.to raise_error(Timeout::Error)
      end
    end
  end

  context "with a source that stalls" do
    it "ends the transfer, with the right counts" do
      senders = Waiters::ALL.map do |waiter|
        source, feed = IO.pipe.each { |io| Cleanup.close(io) }
        feed.write("12345")
        sender = start_sender(waiter, channel(:tcp).out, source, 0, 10, timeout: 0.3)
        end_by_itself(sender) { feed.close }
        [waiter, sender]
      end
      senders.each do |waiter, sender|
        error, seconds = sender.value
        expect(error).to be_a(described_class), "#{waiter}: #{error.inspect}"
        expect(error).to have_attributes(bytes_sent: 5, bytes_expected: 10)
        expect(seconds).to be_between(0.3, 0.3 + Eventually::LATE)
      end
    end
  end

  context "with signals that arrive every 50 ms" do
    around do |example|
      previous = trap("USR1") { nil }
      example.run
    ensure
      trap("USR1", previous)
    end

    # Ruby runs handlers in the main thread, so the transfer must run there for them to interrupt it.
    def storm
      thread = Thread.new do
        loop do
          sleep 0.05
          Process.kill(:USR1, Process.pid)
        end
      end
      yield
    ensure
      thread.kill.join
    end

    %w[copy_small sendfile splice userspace TLS].each do |name|
      next unless (route = EveryRoute::ALL.find { |candidate| candidate.name == name }) # or there is no splice

      { thread: :itself, fiber_async: :Sync }.slice(*Waiters::ALL).each do |waiter, around|
        it "is not extended, with #{route}, waiting by #{waiter}" do
          use_splice(route.splice)
          out = channel(route.kind, small: true).out
          send_all = -> { S.copy_to_socket(out, source_for(route), 0, route.bytes, timeout: 0.3) }
          time = seconds do
            storm do
              expect { around == :Sync ? Sync { send_all.call } : send_all.call }.to raise_error(described_class)
            end
          end
          expect(time).to be_between(0.3, 0.3 + Eventually::LATE)
        end
      end
    end
  end

  context "with timeout: 0" do
    it "sends what the connection takes at once" do
      (Channels::KERNEL + Channels::TLS).product(Waiters::ALL) do |kind, waiter|
        channel = channel(kind)
        reader = channel.read
        expect(copy_under(waiter, channel.out, payload_file(1_500), timeout: 0, head: head)).to eq(1_500)
        channel.finish
        expect(channel.decode(reader.result)).to be_payload(head.b + payload(1_500))
      end
    end

    it "lets the destination's own write try" do
      Waiters::ALL.each do |waiter|
        out = StringIO.new
        expect(copy_under(waiter, out, payload_file(1_500), timeout: 0)).to eq(1_500)
        expect(out.string).to be_payload(payload(1_500))
      end
    end

    EveryRoute::ALL.reject { |route| route.kind == :wrapper }.each do |route|
      it "ends as soon as the connection is full, with #{route}" do
        start_all([route], timeout: 0).each(&:cut).each do |sending|
          expect_timed_out(sending, expected: route.bytes, after: 0)
          expect(sending.error.bytes_sent).to be_positive, sending.to_s
          expect_counted(sending, payload(route.bytes))
        end
      end
    end
  end

  it "takes any Numeric" do
    out = channel(:tcp).out
    [1, 0.5, Rational(1, 2), Float::INFINITY, 10**30].product(Waiters::ALL) do |timeout, waiter|
      expect(copy_under(waiter, out, payload_file(1_500), timeout: timeout)).to eq(1_500)
    end
  end

  context "with a timeout of the IO itself", if: IO.method_defined?(:timeout) do
    def stalled(waiter, **options)
      channel = channel(:tcp, small: true)
      channel.out.timeout = 0.3
      start_sender(waiter, channel.out, payload_file(1_000_003), 0, 1_000_003, **options)
    end

    it "takes that" do
      Waiters::ALL.map { |waiter| stalled(waiter) }.each do |sender|
        error, seconds = sender.value
        expect(error).to be_a(described_class).and have_attributes(bytes_expected: 1_000_003)
        expect(seconds).to be_between(0.3, 0.3 + Eventually::LATE)
      end
    end

    it "takes that of the IO below a TLS connection" do
      channel = channel(:tls13, small: true)
      channel.wire.timeout = 0.3
      error, = start_sender(:thread, channel.out, payload_file(1_000_003)).value
      expect(error).to be_a(described_class)
    end

    it "lets the call's own timeout, or nil, win" do
      senders = [{ timeout: nil }, { timeout: 5 }].product(Waiters::ALL).map { |options, waiter| stalled(waiter, **options) }
      sleep 0.6
      expect(senders.map(&:done?)).to all(be(false))
    end
  end

  it "is an IO::TimeoutError where Ruby has that, else an IOError" do
    ruby_has_it = RUBY_VERSION >= "3.2" # a shim may have defined it since
    expect(described_class.superclass.name).to eq(ruby_has_it ? "IO::TimeoutError" : "IOError")
    expect(described_class).to be < IOError
  end
end
