# frozen_string_literal: true

# The routes on which a connection can be full, and a transfer brought to sleep on each of them. All waiters sleep at
# once, so that an example takes no longer than one of them.
module EveryRoute
  SMALL = 60_000
  LARGE = 1_000_003
  RECORD = 20_000 # of SO_SNDBUF takes a whole TLS record

  # +from_memory+: a source that is no file; +nonblock+: O_NONBLOCK of the destination.
  Route = Struct.new(:name, :kind, :bytes, :splice, :from_memory, :nonblock, keyword_init: true) do
    def to_s
      "#{name} to #{kind}"
    end

    def tls?
      Channels::TLS.include?(kind)
    end
  end

  def self.routes(name, kinds, bytes, splice: false, from_memory: false, nonblock: true)
    kinds.map { |kind| Route.new(name:, kind:, bytes:, splice:, from_memory:, nonblock:) }
  end
  private_class_method :routes

  ALL = [
    *routes("copy_small", %i[tcp pipe], SMALL), # a UNIX socket takes all of it
    *routes("sendfile", Channels::KERNEL, LARGE),
    *routes("splice", Channels::KERNEL, LARGE, splice: true),
    *routes("blocking-mode fd", Channels::KERNEL, LARGE, nonblock: false),
    *routes("userspace", Channels::KERNEL, LARGE, from_memory: true),
    *routes("TLS", Channels::TLS, LARGE),
    *routes("own write", %i[wrapper], LARGE)
  ].select { |route| S.splice_supported? || !route.splice }.freeze

  # A transfer under way, from +source+ to +channel+, read by +reader+.
  class Sending
    attr_reader :route, :waiter, :source, :channel, :reader, :sender, :totals

    def initialize(route, waiter, source, channel, reader, sender, totals)
      @route = route
      @waiter = waiter
      @source = source
      @channel = channel
      @reader = reader
      @sender = sender
      @totals = totals
    end

    # What the call raised, and the seconds that it took.
    def failure(within: 10)
      @failure ||= sender.value(within: within)
    end

    def to_s
      "#{route}, waiting by #{waiter}"
    end

    # A pipe knows no reset.
    def peer_goes(going)
      reader.public_send(route.kind == :pipe ? :close : going)
    end

    def error
      failure.first
    end

    def seconds
      failure.last
    end

    # Cuts the connection once the call has ended, and lets the reader take what is on its way.
    def cut
      failure
      return if channel.wire.closed?

      channel.wire.close
      reader.go(:greedy)
    end

    # Everything that reached the peer.
    def received
      cut
      @received ||= channel.decode(reader.result)
    end
  end

  # Sends over a new channel; the sender's value is [what it raised or returned, seconds].
  def start_sending(route, waiter, source, *region, mode: :stalled, small: true, observe: false, **options, &progress)
    use_splice(route.splice)
    channel = open_channel(route, small: small)
    totals = []
    progress ||= ->(sent) { totals << sent } if observe
    reader = channel.read(mode)
    sender = start_sender(waiter, channel.out, source, *region, **options, &progress)
    end_by_itself(sender) { reader.go(:close) }
    Sending.new(route, waiter, source, channel, reader, sender, totals)
  end

  def open_channel(route, small: true)
    channel(route.kind, small: small, nonblock: route.nonblock).tap do |channel|
      channel.wire.setsockopt(:SOCKET, :SNDBUF, RECORD) if small && route.tls?
    end
  end

  # One per waiter, each of them asleep on a full connection.
  def stall_all(route, *region, **options)
    started = Waiters::ALL.map do |waiter|
      start_sending(route, waiter, block_given? ? yield : source_for(route), *region, **options)
    end
    started.each { |sending| await_full(sending) }
  end

  def source_for(route)
    route.from_memory ? StringIO.new(payload(route.bytes)) : payload_file(route.bytes)
  end

  def start_sender(waiter, out, source, *region, **options, &progress)
    name = waiter.start_with?("blocking") ? :copy_to_socket_blocking : :copy_to_socket
    start_under(waiter) do
      begun = Eventually.now
      outcome =
        begin
          S.public_send(name, out, source, *region, **options, &progress)
        rescue StandardError => e
          e
        end
      [outcome, Eventually.now - begun]
    end
  end

  # After the example, what the block does makes the sender end. A thread that is killed leaves its fibers unfinished,
  # and Ruby 3.1 then looks for them when it closes what they wait for.
  def end_by_itself(sender)
    Cleanup.later do
      yield
      sender.thread.join(0.5)
    end
  end

  def use_splice(wanted)
    saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
    ENV["HYPERION_HTTP_SPLICE"] = wanted ? "1" : nil
    Cleanup.later { ENV["HYPERION_HTTP_SPLICE"] = saved }
    raise "splice is not available" if wanted && !S.splice_runtime_supported?
  end

  private

  def await_full(sending)
    await_backpressure(sending.channel, sending.sender)
  rescue Eventually::NeverHappened => e
    raise e, "#{sending}: #{e.message}; the call gave #{sending.failure.first.inspect if sending.sender.done?}"
  end
end
