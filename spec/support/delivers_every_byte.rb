# frozen_string_literal: true

# The one behaviour that all destinations, routes and waiters share: the bytes of the region arrive, each of them
# once, in order, and the call says so.
module DeliversEveryByte
  SIZES = [1, 1_500, 8_192, 60_000, 65_536, 65_537, 262_144, 1_000_003, 4_194_304].freeze
  LARGE = 1_000_003
  HEAD = "HTTP/1.1 200 OK\r\nx-name: h\u00e9\r\n\r\n" # more bytes than characters
  LARGE_HEAD = "#{HEAD}#{"h\u00e9" * 7_000}".freeze

  # Destinations by route. :native is copy_small or sendfile, by size. A source in memory makes a plain socket
  # take the userspace route.
  PLAIN = (Channels::KERNEL + %i[fd]).freeze
  ROUTES = {
    native: S.supported? ? PLAIN : [],
    splice: S.splice_supported? ? PLAIN : [],
    userspace: PLAIN + Channels::MEMORY + %i[wrapper],
    tls_userspace: Channels::TLS
  }.freeze

  # The least that fills every small pair of buffers, so that a full socket is certain. sendfile to a UNIX socket
  # queues whole pages beyond SO_SNDBUF.
  FILLS = Hash.new(60_000).update(unix: 300_007, ktls12: 600_011, ktls13: 600_011).freeze
end

RSpec.shared_examples "delivers every byte" do |kind:, route:, waiter:|
  let(:head) { DeliversEveryByte::HEAD }
  let(:large) { DeliversEveryByte::LARGE }
  # BSD's sendfile is for sockets alone.
  let(:by_kernel) do
    %i[native splice].include?(route) && (kind != :pipe || S.platform_tag == :linux) && Waiters.by_kernel?(waiter)
  end
  let(:from_memory) { route == :userspace && DeliversEveryByte::PLAIN.include?(kind) }

  if route == :splice
    around do |example|
      saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
      ENV["HYPERION_HTTP_SPLICE"] = "1"
      example.run
    ensure
      ENV["HYPERION_HTTP_SPLICE"] = saved
    end

    before { expect(S.splice_runtime_supported?).to be(true) }
  end

  define_method(:source) do |size|
    from_memory ? Payload::Source.new(payload(size)) : payload_file(size)
  end

  # Sends over a new channel to a reader that takes everything at once; returns what arrived and what the call said.
  define_method(:deliver) do |source, *region, small: false, **options, &progress|
    channel = channel(kind, small: small)
    reader = channel.read
    said = copy_under(waiter, channel.out, source, *region, **options, &progress)
    channel.finish
    [channel.decode(reader.result), said]
  end

  # The same to a reader that first reads nothing, until the sender is seen asleep on the full socket.
  define_method(:deliver_to_slow_reader) do |source, *region, nonblock: true, **options, &progress|
    channel = channel(kind, small: true, nonblock: nonblock)
    reader = channel.read(:stalled)
    sender = start_copy(waiter, channel.out, source, *region, **options, &progress)
    await_backpressure(channel, sender)
    reader.go(:slow)
    said = sender.value
    channel.finish
    [channel.decode(reader.result), said, sender]
  end

  DeliversEveryByte::SIZES.each do |size|
    it "sends #{size} bytes" do
      received, said = deliver(source(size), 0, size)
      expect(received).to be_payload(payload(size))
      expect(said).to eq(size)
    end
  end

  it "sends a slice from the middle" do
    [[1, 1], [4_095, 4_098], [8_193, 65_537], [12_345, 700_001]].each do |offset, length|
      received, said = deliver(source(large), offset, length)
      expect(received).to be_payload(payload(large).byteslice(offset, length))
      expect(said).to eq(length)
    end
  end

  it "sends to the end of the file where no length is given" do
    received, said = deliver(source(large), 99_999)
    expect(received).to be_payload(payload(large).byteslice(99_999..))
    expect(said).to eq(large - 99_999)
  end

  it "sends nothing for length 0, nor for an offset at the end of the file" do
    expect(deliver(source(1_500), 0, 0)).to eq(["", 0])
    expect(deliver(source(1_500), 1_500)).to eq(["", 0])
  end

  it "sends the head first, and does not count it" do
    [0, 1, 8_192, 65_536, 65_537, large].each do |size|
      received, said = deliver(source(large), large - size, size, head: head)
      expect(received).to be_payload(head.b + payload(large).byteslice(large - size, size))
      expect(said).to eq(size)
    end
  end

  it "tells the block a growing total of the region's bytes, the last of them the whole" do
    [1, 65_536, large].each do |size|
      totals = []
      received, = deliver(source(size), 0, size, head: head) { |sent| totals << sent }
      expect(received).to be_payload(head.b + payload(size))
      expect(totals.last).to eq(size)
      expect(totals).to all(be_between(1, size))
      expect(totals).to eq(totals.uniq.sort)
    end
  end

  it "neither uses nor moves the file's position" do
    file = payload_file(large)
    file.seek(777)
    received, = deliver(file, 10, 900_000)
    expect(received).to be_payload(payload(large).byteslice(10, 900_000))
    expect(file.pos).to eq(777)
  end

  it "sends a slice beyond 4 GiB", unless: RUBY_ENGINE == "jruby" do
    file = Cleanup.close(File.open(Payload.sparse_path, "rb"))
    received, said = deliver(file, Payload::SPARSE_OFFSET, Payload::SPARSE_LENGTH)
    expect(received).to be_payload(Payload.sparse_bytes)
    expect(said).to eq(Payload::SPARSE_LENGTH)
  end

  it "leaves no descriptor open" do
    deliver(source(1), 0, 1) # whatever is made once, is made now
    Cleanup.run
    expect do
      [1_500, large].each { |size| deliver(source(size), 0, size, head: head) }
      Cleanup.run
    end.not_to leak_fds
  end

  it "takes the promised route" do
    calls = observe_primitives
    deliver(source(8_192), 0, 8_192)
    small = calls.all.slice!(0..).map(&:name)
    deliver(source(large), 0, large)
    steps = calls.names.uniq - %i[fadvise_sequential]

    if %i[native splice].include?(route) && Waiters.by_kernel?(waiter)
      expect(small).to eq(%i[copy_small])
      expect(calls.to(:fadvise_sequential).size).to eq(1)
      step = route == :splice ? :copy_splice_into_pipe : :copy
      # The loop of a thread may send and wait in an internal primitive instead.
      expect(steps).to eq([step]).or(waiter.start_with?("fiber") || route == :splice ? eq([step]) : be_empty)
    else
      expect(small | steps).to be_empty
    end
  end

  next if Channels::MEMORY.include?(kind)

  it "goes on where a full socket stopped it" do
    [DeliversEveryByte::FILLS[kind], large].each do |size|
      calls = observe_primitives
      received, said, sender = deliver_to_slow_reader(source(size), 0, size)
      expect(received).to be_payload(payload(size))
      expect(said).to eq(size)
      by_primitives = waiter.start_with?("fiber") && by_kernel && !calls.statuses.include?(:unsupported)
      expect(calls).to be_met_full_socket if by_primitives
      case waiter
      when :fiber_minimal then expect(sender.scheduler.waits.map(&:events)).to include(IO::WRITABLE)
      when :blocking_in_fiber then expect(sender.scheduler.waits).to be_empty
      end
    end
  end

  if route == :splice
    it "uses one pipe for a response of many steps, and closes it" do
      calls = observe_primitives
      deliver_to_slow_reader(source(large), 0, large)
      steps = calls.to(:copy_splice_into_pipe)
      pipes = steps.map { |call| call.arguments.last(2) }.uniq
      expect(steps.size).to be > 1
      expect(pipes.size).to eq(1)
      expect(pipes.first).to all(be_closed)
    end
  end

  it "goes on where a full socket stopped the head" do
    totals = []
    head = DeliversEveryByte::LARGE_HEAD
    source = source(large)
    size = DeliversEveryByte::FILLS[kind]
    received, said, = deliver_to_slow_reader(source, 5, size, head: head) { |sent| totals << sent }
    expect(received).to be_payload(head.b + payload(large).byteslice(5, size))
    expect(said).to eq(size)
    expect(totals.last).to eq(size)
    expect(totals).to eq(totals.uniq.sort)
  end

  it "goes on through small buffers to a reader that is always ready" do
    [1_500, 65_536, 262_144].each do |size|
      received, said = deliver(source(size), 0, size, small: true, head: head)
      expect(received).to be_payload(head.b + payload(size))
      expect(said).to eq(size)
    end
  end

  next if Channels::TLS.include?(kind) # Ruby's OpenSSL itself needs O_NONBLOCK

  it "goes on where a full socket in blocking mode stopped it" do
    size = DeliversEveryByte::FILLS[kind]
    received, said, = deliver_to_slow_reader(source(size), 0, size, nonblock: false)
    expect(received).to be_payload(payload(size))
    expect(said).to eq(size)
  end
end
