# frozen_string_literal: true

# What the kernel has for sending without a copy besides sendfile(2), in C: whether the gem would gain by it.

require "io/nonblock"
require_relative "support"
require_relative "support/c_loop"
require_relative "support/no_wire"
require_relative "support/veth"

CLAIM = <<~TEXT.tr("\n", " ").strip
  MSG_ZEROCOPY, io_uring's SEND_ZC and io_uring's SPLICE are no way to send a file cheaper. Where packets arrive, over
  loopback and a veth pair, what the gem does, which is sendfile(2), or a read and a send, takes at most 1.1 times the
  CPU time of the cheapest of them, both ends counted: a peer that leaves its copy to the arrival of an acknowledgement
  has it charged to the reader. On a device that takes packets without a copy and drops them, the most a network card
  can do for a sender, and with notifications not counted, it takes at most 1.6 times, and as much only from 16 MiB
  up. All in C, on a blocking socket. The reader, in another process, is always ready, or asleep until a burst of small
  responses is sent. "Mapped once" keeps one mapping of the file for all responses, which a server can't, and takes no
  part in the checks.
TEXT

# The calls of one round, as many as make a burst, are measured together.
BURST = { small: 128 * Bench::KIB, large: 16 * Bench::MIB }.freeze
SMALL = [8 * Bench::KIB, 64 * Bench::KIB].freeze
# Of either end, so that a burst fits in whatever the link's packets take.
BUFFER = 1 * Bench::MIB

LOOPBACK = "loopback"
VETH = "veth"
NO_WIRE = "a device that drops"
# Times the CPU of the best other way.
LIMITS = { LOOPBACK => 1.1, VETH => 1.1, NO_WIRE => 1.6 }.freeze

# How one response is sent: by socket, file, length, the address of the file's mapping, and a pipe. Of the kinds, :ours
# is in the gem, :other is not and might be, :known is what either is compared with, :ideal what none can have.
Peer = Struct.new(:kind, :action)

# The mapping is made for each response, as a server would have to.
def mapping_each_time
  lambda do |socket, file, length, _, pipe|
    address = Bench.map(file, length)
    yield.call(socket, file, length, address, pipe)
    Bench.unmap(address, length)
  end
end

SENDFILE = ->(socket, file, length, *) { Bench.c_loop(socket, file, 0, length) }
MAPPED = ->(socket, _, length, address, _) { Bench.mapped_send(socket, address, length) }
ZEROCOPY = ->(socket, _, length, address, _) { Bench.zerocopy_send(socket, address, length) }
URING = ->(socket, _, length, address, _) { Bench.uring_send(socket, address, length) }

PEERS = {
  "sendfile" => Peer.new(:ours, SENDFILE),
  "sendfile again" => Peer.new(:known, SENDFILE),
  "pread, send" => Peer.new(:ours, ->(socket, file, length, *) { Bench.read_send(socket, file, length) }),
  "mmap, send" => Peer.new(:known, mapping_each_time { MAPPED }),
  "mmap, MSG_ZEROCOPY" => Peer.new(:other, mapping_each_time { ZEROCOPY }),
  "mapped once, MSG_ZEROCOPY" => Peer.new(:ideal, ZEROCOPY),
  "splice" => Peer.new(:known, ->(socket, file, length, _, pipe) { Bench.splice(socket, file, length, *pipe) })
}.freeze
URING_PEERS = {
  "mmap, io_uring SEND_ZC" => Peer.new(:other, mapping_each_time { URING }),
  "mapped once, io_uring SEND_ZC" => Peer.new(:ideal, URING),
  "io_uring SPLICE" =>
    Peer.new(:other, ->(socket, file, length, _, pipe) { Bench.uring_splice(socket, file, length, *pipe) })
}.freeze

# Those that can take part here.
def peers(report)
  unless Bench::Compile.load("uring")
    report.skip("io_uring", "this system's headers don't know SEND_ZC")
    return PEERS
  end
  Bench.uring_open
  PEERS.merge(URING_PEERS)
rescue SystemCallError => e
  report.skip("io_uring", e.message)
  PEERS
end

def prepare(socket, small)
  socket.nonblock = false
  socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_SNDBUF, BUFFER) if small
  Bench.zerocopy_allow(socket.fileno)
end

# Seconds per call.
Cost = Struct.new(:sender, :both, :wall)

# Each of these yields what makes the calls of a burst, given a block that gets the descriptor, and returns their cost.
def over_drain(length, burst, link)
  small = SMALL.include?(length)
  Bench::Drain.open(link: link) do |drain|
    prepare(drain.socket, small)
    yield(lambda do |&calls|
      reader = drain.reader_cpu
      sample = drain.public_send(small ? :asleep : :ready, burst) do |socket|
        Bench::Measure.time { calls.call(socket.fileno) }
      end
      reader = drain.reader_cpu - reader
      Bench.zerocopy_reap(drain.socket.fileno)
      [sample.cpu, sample.cpu + reader, sample.wall]
    end)
  end
end

def over_no_wire(burst, device)
  yield(lambda do |&calls|
    socket = device.connection
    prepare(socket, false)
    arrived = device.arrived
    sample = Bench::Measure.time { calls.call(socket.fileno) }
    raise "bench: the device got less than was sent" if device.arrived - arrived < burst

    socket.close
    Bench.zerocopy_forget
    [sample.cpu, sample.cpu, sample.wall]
  end)
end

def over(link, length, burst, &block)
  Bench::NoWire === link ? over_no_wire(burst, link, &block) : over_drain(length, burst, link, &block)
end

# The costs by peer.
def measure(peers, name, link, length, rounds)
  burst = [BURST.fetch(SMALL.include?(length) ? :small : :large), length].max
  Bench::SourceFile.open(length) do |file|
    address = Bench.map(file.fileno, length)
    pipe = Bench.pipe_for_splice
    over(link, length, burst) do |transfer|
      Bench::Measure.interleave(peers, rounds: rounds) do |peer, way|
        Bench.progress("zerocopy: #{name}, #{Bench.size(length)}, #{peer}")
        seconds = transfer.call do |socket|
          (burst / length).times { way.action.call(socket, file.fileno, length, address, pipe) }
        end
        Bench.uring_reap if Bench.respond_to?(:uring_reap)
        Cost.new(*seconds.map { |of_burst| of_burst * length / burst })
      end
    end
  ensure
    Bench.unmap(address, length)
    pipe.each { |descriptor| IO.for_fd(descriptor).close }
  end
end

# Of the calls so far: completed, copied.
def counts
  { "MSG_ZEROCOPY" => Bench.zerocopy_counts,
    "io_uring SEND_ZC" => Bench.respond_to?(:uring_counts) ? Bench.uring_counts : [0, 0] }
end

def copied(before)
  counts.to_h { |name, now| [name, now.zip(before.fetch(name)).map { |count, earlier| count - earlier }] }
end

def cheapest(both, peers, kind)
  peers.select { |_, peer| peer.kind == kind }.keys.min_by { |name| Bench::Statistics.median(both.fetch(name)) }
end

def row(link, length, name, costs, reference)
  medians = Cost.members.map { |member| Bench::Statistics.median(costs.map(&member)) }
  ratios = %i[both wall].map { |member| Bench::Statistics.ratio(costs.map(&member), reference.map(&member)) }
  [link, Bench.size(length), name, medians.first * 1e6, *medians.map { |seconds| seconds * 1e9 / length }, *ratios]
end

# Yields the links by name.
def links(report, names)
  Bench::Veth.open do |veth, why_no_veth|
    Bench::NoWire.open do |device, why_no_device|
      all = { LOOPBACK => Bench::Loopback, VETH => veth, NO_WIRE => device }.slice(*names)
      missing = { VETH => why_no_veth, NO_WIRE => why_no_device }.slice(*names).compact
      missing.each { |name, why| report.skip(name, why) }
      yield all.compact
    end
  end
end

SETTINGS = {
  quick: { small: 60, large: 10, sizes: [8 * Bench::KIB, 1 * Bench::MIB], names: [LOOPBACK, NO_WIRE] },
  full: { small: 600, large: 60, sizes: [*SMALL, 1 * Bench::MIB, 16 * Bench::MIB, 64 * Bench::MIB],
          names: [LOOPBACK, VETH, NO_WIRE] }
}.freeze

Bench.run("zerocopy", CLAIM, **SETTINGS) do |report, small:, large:, sizes:, names:|
  Bench::Compile.load!("zerocopy")
  peers = peers(report)
  rows = []
  copies = []
  charts = Hash.new { |hash, link| hash[link] = Hash.new { |series, name| series[name] = {} } }
  links(report, names) do |links|
    links.to_a.product(sizes) do |(name, link), length|
      before = counts
      costs = measure(peers, name, link, length, SMALL.include?(length) ? small : large)
      both = costs.transform_values { |own| own.map(&:both) }
      ours, other = %i[ours other].map { |kind| cheapest(both, peers, kind) }
      report.check("CPU of #{ours} against #{other}, #{Bench.size(length)}, #{name}",
                   Bench::Statistics.ratio(both.fetch(ours), both.fetch(other)), at_most: LIMITS.fetch(name))
      costs.each do |peer, own|
        rows << row(name, length, peer, own, costs.fetch("sendfile"))
        charts[name][peer][length] = rows.last[-2]
      end
      copied(before).each { |call, (calls, copied)| copies << [name, Bench.size(length), call, calls, copied] }
    end
  end
  report.table("CPU per call; per GB CPU of the sender, CPU of both ends, wall time (medians); against sendfile",
               ["link", "size", "peer", "sender µs", "sender s/GB", "both ends s/GB", "wall s/GB",
                "both ends against sendfile", "wall against sendfile"], rows)
  report.table("What the kernel says of the calls that were to make no copy", %w[link size call completed copied],
               copies)
  charts.each do |link, series|
    report.chart("CPU of both ends, #{link}", over: "response", unit: "sendfile = 1", series: series)
  end
end
