# frozen_string_literal: true

# What the kernel has for sending without a copy besides sendfile(2), in C: whether the gem would gain by it.

require "io/nonblock"
require_relative "support"
require_relative "support/c_loop"
require_relative "support/veth"

CLAIM = <<~TEXT.tr("\n", " ").strip
  MSG_ZEROCOPY, io_uring's SEND_ZC and io_uring's SPLICE send a file from 8 KiB to 64 MiB at no less cost than what the
  gem does in C already, which is sendfile(2), or a read and a send: within 10 % of the CPU time of both ends. All in C,
  on a blocking socket, the cheapest of either kind against each other. Both ends count, because a peer that leaves its
  copy to the arrival of an acknowledgement has it charged to the reader. The reader, in another process, is always
  ready, or asleep until a burst of small responses is sent. "Mapped once" keeps one mapping of the file for all
  responses, which a server can't, and takes no part in the check.
TEXT

# The calls of one round, as many as make a burst, are measured together.
BURST = { small: 128 * Bench::KIB, large: 16 * Bench::MIB }.freeze
SMALL = [8 * Bench::KIB, 64 * Bench::KIB].freeze
# Of either end, so that a burst fits in whatever the link's packets take.
BUFFER = 1 * Bench::MIB

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

# By peer.
def measure(peers, link, length, rounds)
  small = SMALL.include?(length)
  burst = [BURST.fetch(small ? :small : :large), length].max
  Bench::SourceFile.open(length) do |file|
    address = Bench.map(file.fileno, length)
    pipe = Bench.pipe_for_splice
    Bench::Drain.open(**link) do |drain|
      prepare(drain.socket, small)
      Bench::Measure.interleave(peers, rounds: rounds) do |name, peer|
        Bench.progress("zerocopy: #{link.empty? ? "loopback" : "veth"}, #{Bench.size(length)}, #{name}")
        arguments = [drain.socket.fileno, file.fileno, length, address, pipe]
        reader = drain.reader_cpu
        sample = drain.public_send(small ? :asleep : :ready, burst) do
          Bench::Measure.time { (burst / length).times { peer.action.call(*arguments) } }
        end
        reader = drain.reader_cpu - reader
        Bench.zerocopy_reap(drain.socket.fileno)
        Bench.uring_reap if Bench.respond_to?(:uring_reap)
        Cost.new(*[sample.cpu, sample.cpu + reader, sample.wall].map { |seconds| seconds * length / burst })
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

SETTINGS = {
  quick: { small: 60, large: 10, sizes: [8 * Bench::KIB, 1 * Bench::MIB], links: %w[loopback] },
  full: { small: 600, large: 60, sizes: [*SMALL, 1 * Bench::MIB, 16 * Bench::MIB, 64 * Bench::MIB],
          links: %w[loopback veth] }
}.freeze

Bench.run("zerocopy", CLAIM, **SETTINGS) do |report, small:, large:, sizes:, links:|
  Bench::Compile.load!("zerocopy")
  peers = peers(report)
  rows = []
  copies = []
  charts = Hash.new { |hash, link| hash[link] = Hash.new { |series, name| series[name] = {} } }
  Bench::Veth.open do |veth, why|
    report.skip("veth", why) if why
    links.product(sizes) do |link, length|
      next if link == "veth" && veth.nil?

      before = counts
      costs = measure(peers, link == "veth" ? { link: veth } : {}, length, SMALL.include?(length) ? small : large)
      both = costs.transform_values { |own| own.map(&:both) }
      ours, other = %i[ours other].map { |kind| cheapest(both, peers, kind) }
      report.check("CPU of #{ours} against #{other}, #{Bench.size(length)}, #{link}",
                   Bench::Statistics.ratio(both.fetch(ours), both.fetch(other)), at_most: 1.1)
      costs.each do |name, own|
        rows << row(link, length, name, own, costs.fetch("sendfile"))
        charts[link][name][length] = rows.last[-2]
      end
      copied(before).each { |name, (calls, copied)| copies << [link, Bench.size(length), name, calls, copied] }
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
