# frozen_string_literal: true

# Every way from a file to a socket that Ruby has, from 1 KiB to 256 MiB, against a C loop.

require_relative "support"
require_relative "support/c_loop"
require_relative "support/kept_alive"
require_relative "support/system_calls"
require "sendfile"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  From 4 to 64 KiB a response through copy_to_socket costs less CPU than through any other way Ruby has, and at most 1.2
  times what a C program pays for the cheapest system calls for that size; from 1 MiB up, at most 1.05 times. With 8 KiB
  it allocates no Ruby object, with any size at most 4.
TEXT

# Of these, kept-alive connections get one response each, and are read to the end afterwards.
SMALL = [1, 4, 8, 16, 32, 64].map { |kib| kib * Bench::KIB }.freeze
CONNECTIONS = 16
# Of larger ones, one connection gets as many in a row as make a stretch. Its reader is another process, on another CPU,
# and always ready.
STRETCH = 16 * Bench::MIB

BUFFER_SIZE = 64 * Bench::KIB
BUFFER = String.new(capacity: BUFFER_SIZE)
HEAD = ("HTTP/1.1 200 OK\r\n".ljust(196, "x") << "\r\n\r\n").freeze

# pread(2) into a String that is used again, and write(2).
def pread_write(socket, file, length)
  offset = 0
  while offset < length
    file.pread([length - offset, BUFFER_SIZE].min, offset, BUFFER)
    offset += socket.write(BUFFER)
  end
end

def mmap_write(socket, file, length)
  map = IO::Buffer.map(file, length, 0, IO::Buffer::READONLY)
  offset = 0
  while offset < length
    written = map.write(socket, 0, offset)
    if written.positive?
      offset += written
    elsif written == -Errno::EAGAIN::Errno
      socket.wait_writable
    else
      raise SystemCallError.new("write", -written)
    end
  end
ensure
  map&.free
end

# The primitive, which makes one attempt.
def copy(socket, file, length)
  offset = 0
  while offset < length
    bytes, status = S.copy(socket, file, offset, length - offset)
    socket.wait_writable if status == :eagain
    offset += bytes
  end
end

OURS = "copy_to_socket"
SPLICE = "copy_to_socket, splice"
COPY_SMALL = "copy_small"
MMAP = "mmap, write"

# Each sends the file to each of the sockets.
C_LOOPS = {
  "C loop, sendfile" => ->(sockets, file, length) { Bench.c_sendfile(sockets, file, length) },
  "C loop, pread and send" => ->(sockets, file, length) { Bench.c_pread_send(sockets, file, length) }
}.freeze
# Its ratio to itself is the noise.
NOISE = { "C loop, sendfile, again" => C_LOOPS.values.first }.freeze
OUR_WAYS = {
  OURS => ->(sockets, file, length) { sockets.each { |socket| S.copy_to_socket(socket, file, 0, length) } },
  SPLICE => lambda do |sockets, file, length|
    Bench.with_splice { sockets.each { |socket| S.copy_to_socket(socket, file, 0, length) } }
  end,
  # The primitives: what copy_to_socket costs beyond them is the price of looking after the rest.
  "copy" => ->(sockets, file, length) { sockets.each { |socket| copy(socket, file, length) } },
  COPY_SMALL => ->(sockets, file, length) { sockets.each { |socket| S.copy_small(socket, file, 0, length) } }
}.freeze
OTHER_WAYS = {
  "IO.copy_stream" => lambda do |sockets, file, length|
    sockets.each { |socket| IO.copy_stream(file, socket, length, 0) }
  end,
  "gem sendfile" => ->(sockets, file, length) { sockets.each { |socket| socket.sendfile(file, 0, length) } },
  "pread, write" => ->(sockets, file, length) { sockets.each { |socket| pread_write(socket, file, length) } },
  MMAP => ->(sockets, file, length) { sockets.each { |socket| mmap_write(socket, file, length) } }
}.freeze
WITH_EXTRAS = {
  "copy_to_socket, head:" => lambda do |sockets, file, length|
    sockets.each { |socket| S.copy_to_socket(socket, file, 0, length - HEAD.bytesize, head: HEAD) }
  end,
  "copy_to_socket, timeout:" => lambda do |sockets, file, length|
    sockets.each { |socket| S.copy_to_socket(socket, file, 0, length, timeout: 5) }
  end
}.freeze

# Map and write work from this Ruby on, and say that they are experimental.
MMAP_THERE = RUBY_VERSION >= "3.2"
Warning[:experimental] = false

# Without those that are not for this length or this Ruby.
def ways(length, *groups)
  ways = groups.reduce(:merge)
  ways = ways.except(MMAP) unless MMAP_THERE
  length > S::SMALL_FILE_THRESHOLD ? ways.except(COPY_SMALL) : ways.except(SPLICE)
end

# The connections of one way, which are its own: what it did before to the buffers and windows of a connection decides
# what it costs now.
class Connections
  def initialize(length, responses)
    @length = length
    @responses = responses
    @connections = length <= SMALL.max ? Bench::KeptAlive.new(responses) : Bench::Drain.new.tap(&:apart)
  end

  # Yields so many sockets, to each of which the block has to send one response.
  def respond(&send)
    return @connections.respond(@length, &send) if @connections.is_a?(Bench::KeptAlive)

    @connections.ready(@length * @responses) { |socket| send.call([socket] * @responses) }
  end

  def close
    @connections.close
  end
end

# Yields a file of that length, and { name => [way, connections] }.
def prepare(length, responses, ways)
  Bench::SourceFile.open(length) do |file|
    connected = {}
    ways.each { |name, way| connected[name] = [way, Connections.new(length, responses)] }
    yield file, connected
  ensure
    connected.each_value { |_, connections| connections.close }
  end
end

# What one way cost in one round, per response: seconds, and context switches of this process.
Cost = Struct.new(:wall, :cpu, :switches)

def cost(sockets, file, length, way)
  switches = Bench.context_switches.sum
  sample = Bench::Measure.time { way.call(sockets, file, length) }
  switches = Bench.context_switches.sum - switches
  Cost.new(*[sample.wall, sample.cpu, switches.to_f].map { |figure| figure / sockets.size })
end

# All rounds of one length.
class Comparison
  attr_reader :length

  # @param epochs [Integer] how often all connections are made anew: two of the same way can differ for good in what the
  #   kernel has made of their buffers and windows
  def self.of(length, rounds, epochs, situation)
    responses = length <= SMALL.max ? CONNECTIONS : [STRETCH / length, 1].max
    ways = ways(length, C_LOOPS, NOISE, OUR_WAYS, OTHER_WAYS)
    costs = Array.new(epochs) do
      prepare(length, responses, ways) do |file, connected|
        Bench::Measure.interleave(connected, rounds: (rounds / epochs.to_f).ceil) do |name, (way, connections)|
          Bench.progress("paths: #{Bench.size(length)}, #{situation}, #{name}")
          connections.respond { |sockets| cost(sockets, file, length, way) }
        end
      end
    end
    new(length, costs.reduce { |all, more| all.merge(more) { |_, own, others| own + others } })
  end

  # @param costs [Hash{String => Array<Cost>}] by way
  def initialize(length, costs)
    @length = length
    @costs = costs
  end

  def names
    @costs.keys
  end

  def median(name, figure)
    Bench::Statistics.median(@costs.fetch(name).map(&figure))
  end

  # Of CPU.
  def ratio(name, to)
    Bench::Statistics.ratio(@costs.fetch(name).map(&:cpu), @costs.fetch(to).map(&:cpu))
  end

  # The one by the cheapest system calls for this length.
  def c_loop
    cheapest(C_LOOPS)
  end

  def cheapest_other
    cheapest(OTHER_WAYS)
  end

  def rows
    names.map do |name|
      cpu, wall, switches = %i[cpu wall switches].map { |figure| median(name, figure) }
      [Bench.size(length), name, cpu * 1e6, ratio(name, c_loop), ratio(OURS, name), cpu * 1e9 / length,
       length / wall / 1e9, switches]
    end
  end

  private

  def cheapest(ways)
    (ways.keys & names).min_by { |name| median(name, :cpu) }
  end
end

# What a small response costs beyond the C loop, in the steps from one way to the next: a method that leaves the GVL for
# the same system call; the care for signals, for IO#close in another thread, and for tails that TCP holds back; the
# façade.
STEPS = ["gem sendfile", COPY_SMALL, OURS].freeze
STEP_COLUMNS = ["size", "C loop", "+ method, GVL", "+ signals, close, tails", "+ façade", "copy_to_socket"].freeze

def step_rows(comparisons)
  comparisons.map do |comparison|
    costs = [comparison.c_loop, *STEPS].map { |name| comparison.median(name, :cpu) * 1e6 }
    [Bench.size(comparison.length), costs.first, *costs.each_cons(2).map { |before, after| after - before }, costs.last]
  end
end

# As a server has them: beside another thread, Ruby and its extensions take more precautions.
def beside_an_idle_thread
  thread = Thread.new { sleep }
  yield
ensure
  thread.kill.join
end

# { name => objects of each call }
def objects(length, calls)
  prepare(length, 1, ways(length, OUR_WAYS, WITH_EXTRAS, OTHER_WAYS)) do |file, ways|
    Bench::Measure.interleave(ways, rounds: calls) do |name, (way, connections)|
      Bench.progress("paths: #{Bench.size(length)}, objects, #{name}")
      connections.respond { |sockets| allocated(sockets, file, length, way) }
    end
  end
end

# Nothing between the two readings of the counter allocates but the call.
def allocated(sockets, file, length, way)
  before = GC.stat(:total_allocated_objects)
  way.call(sockets, file, length)
  GC.stat(:total_allocated_objects) - before
end

# { name => { call => times per response } }
def system_calls(length, calls)
  Bench.progress("paths: #{Bench.size(length)}, system calls")
  counts = prepare(length, 1, ways(length, C_LOOPS, OUR_WAYS, WITH_EXTRAS, OTHER_WAYS)) do |file, ways|
    Bench::SystemCalls.count do |mark|
      ways.each do |name, (way, connections)|
        connections.respond { |sockets| way.call(sockets, file, length) } # and what is done but once
        calls.times { connections.respond { |sockets| mark.call(name) { way.call(sockets, file, length) } } }
      end
    end
  end
  counts.transform_values { |own| own.transform_values { |count| count.to_f / calls } }
end

def count_rows(length, objects, system_calls)
  ways(length, C_LOOPS, OUR_WAYS, WITH_EXTRAS, OTHER_WAYS).keys.map do |name|
    calls = system_calls&.fetch(name)
    names = calls&.map { |call, times| times == 1 ? call : "#{call} × #{format("%g", times.round(1))}" }
    own = objects[name]
    [Bench.size(length), name, calls&.values&.sum, names&.join(", "), own && Bench::Statistics.median(own), own&.max]
  end
end

COLUMNS = ["size", "way", "CPU µs per response", "CPU against the C loop", "copy_to_socket against it",
           "CPU s/GB", "GB/s", "context switches per response"].freeze

COUNT_COLUMNS = ["size", "way", "system calls per response", "which", "objects per call, median", "most"].freeze

# { name => { length => what the block says of the two } }
def series(comparisons, *groups)
  names = groups.reduce(:merge).keys & comparisons.flat_map(&:names)
  names.to_h do |name|
    own = comparisons.select { |comparison| comparison.names.include?(name) }
    [name, own.to_h { |comparison| [comparison.length, yield(comparison, name)] }]
  end
end

def picture(report, comparisons)
  ratios = series(comparisons, OUR_WAYS, OTHER_WAYS) do |comparison, name|
    comparison.ratio(name, comparison.c_loop)
  end
  per_gb = series(comparisons, C_LOOPS, OUR_WAYS, OTHER_WAYS) do |comparison, name|
    comparison.median(name, :cpu) * 1e9 / comparison.length
  end
  report.chart("CPU of a response, against the cheapest system calls in C",
               over: "size of the response", unit: "times the C loop", series: ratios)
  report.chart("CPU per GB", over: "size of the response", unit: "CPU seconds per GB", series: per_gb, log: true)
end

MIB = Bench::MIB
FULL = {
  small: 500, large: { MIB / 4 => 60, MIB => 120, 4 * MIB => 120, 16 * MIB => 100, 64 * MIB => 30, 256 * MIB => 10 },
  epochs: 5, counted: [*SMALL, MIB / 4, MIB, 16 * MIB, 256 * MIB], calls: 20
}.freeze
QUICK = { small: 60, large: { MIB => 12 }, epochs: 2, counted: [8 * Bench::KIB, MIB], calls: 5 }.freeze

Bench.run("paths", CLAIM, quick: QUICK, full: FULL) do |report, small:, large:, epochs:, counted:, calls:|
  report.skip(MMAP, "IO::Buffer.map is of use from Ruby 3.2 on") unless MMAP_THERE
  Bench.pin(0)
  alone = SMALL.map { |length| Comparison.of(length, small, epochs, "alone") }
  beside = beside_an_idle_thread { SMALL.map { |length| Comparison.of(length, small, epochs, "idle thread") } }
  larger = large.map { |length, rounds| Comparison.of(length, rounds, epochs, "alone") }

  { "" => alone, ", beside an idle thread" => beside }.each do |situation, comparisons|
    comparisons.reject { |comparison| comparison.length < 4 * Bench::KIB }.each do |comparison|
      { comparison.cheapest_other => 1.0, comparison.c_loop => 1.2 }.each do |other, limit|
        report.check("CPU against #{other}, #{Bench.size(comparison.length)}#{situation}",
                     comparison.ratio(OURS, other), at_most: limit)
      end
    end
  end
  larger.select { |comparison| comparison.length >= MIB }.each do |comparison|
    report.check("CPU against #{comparison.c_loop}, #{Bench.size(comparison.length)}",
                 comparison.ratio(OURS, comparison.c_loop), at_most: 1.05)
  end

  rows = counted.flat_map do |length|
    objects = objects(length, calls)
    (OUR_WAYS.slice(OURS).keys + WITH_EXTRAS.keys).each do |name|
      # A path that is taken for the first time fills caches of Ruby's own, which count as objects, too.
      usual = Bench::Statistics.percentile(objects.fetch(name), 90)
      report.check("objects per call, #{name}, #{Bench.size(length)}", Bench::Statistics.exactly(usual),
                   at_most: length <= 8 * Bench::KIB ? 0 : 4)
    end
    count_rows(length, objects, system_calls(length, calls))
  rescue Bench::SystemCalls::Unavailable => e
    report.skip("system calls of #{Bench.size(length)}", e.message)
    count_rows(length, objects, nil)
  end

  picture(report, alone + larger)
  note = "median, and the median of the rounds' ratios with its interval; the C loop is the cheaper of the two"
  report.table("Up to 64 KiB: #{note}", COLUMNS, alone.flat_map(&:rows))
  report.table("Up to 64 KiB, beside an idle thread", COLUMNS, beside.flat_map(&:rows))
  report.table("From 256 KiB", COLUMNS, larger.flat_map(&:rows))
  report.table("Where the CPU goes: µs of a response", STEP_COLUMNS, step_rows(alone))
  report.table("Where the CPU goes, beside an idle thread: µs of a response", STEP_COLUMNS, step_rows(beside))
  report.table("Counted: system calls by strace, objects by GC.stat", COUNT_COLUMNS, rows)
end
