# frozen_string_literal: true

# DATA frames: by which way a frame of which size goes, how much is read at a time, and what it costs against a
# server's own way.

require_relative "support"

S = Hyperion::Http::Sendfile
NATIVE = S.const_get(:Native)

CLAIM = <<~TEXT.tr("\n", " ").strip
  copy_data_frames takes the cheaper of its two ways for each size of frame, at 1.15 times the CPU of the better one at
  most: to read many frames at once and send them in one call, or a header and a sendfile(2) for each. At 16 KiB, the
  only size that browsers and curl announce, it takes at most half the CPU of a server that reads each frame into a
  String and writes header and String; and no object per frame.
TEXT

STREAM = 1
FRAME_SIZES = [16, 32, 64, 128, 256, 1024].map { |size| size * Bench::KIB }.freeze
AT_ONCE = [32, 64, 128, 256, 512, 1024].map { |size| size * Bench::KIB }.freeze

OURS = "copy_data_frames"
READS = "reads first"
KERNEL = "sendfile"
STRING = "copy_data_frames of a String"
RUBY = "pread and write of each frame"

def native(method, *at_once)
  lambda do |socket, file, length, max|
    frames = NATIVE::Frames.new.set(nil, 0, length, STREAM, max, 0, true, *at_once)
    left = frames.wire_length
    status = NATIVE.transfer(socket, file, 0, left, method, nil, 0, nil, false, false, frames) do |sent, _|
      left -= sent
    end
    raise "bench: #{method} ended with #{status}" unless status == :done && left.zero?
  ensure
    frames&.release
  end
end

def frame_by_frame(socket, file, length, max)
  0.step(length - 1, max) do |offset|
    piece = file.pread([max, length - offset].min, offset)
    last = offset + piece.bytesize == length
    socket.write([piece.bytesize >> 16, piece.bytesize & 0xffff, 0, last ? 1 : 0, STREAM].pack("CnCCN"), piece)
  end
end

def send_all(socket, source, length, max)
  S.copy_data_frames(socket, source, 0, length, stream_id: STREAM, max_frame_size: max)
end

WAYS = {
  OURS => method(:send_all),
  READS => native(:buffered),
  KERNEL => native(:sendfile),
  STRING => lambda do |socket, file, length, max|
    @content ||= file.pread(length, 0).freeze
    send_all(socket, @content, length, max)
  end,
  RUBY => method(:frame_by_frame)
}.freeze

# CPU seconds by way and round, of the same length to a reader that is always ready.
def measure(file, length, rounds, ways, max, what)
  wire = length + (9 * ((length + max - 1) / max))
  Bench::Drain.open do |drain|
    drain.apart
    samples = Bench::Measure.interleave(ways, rounds: rounds) do |name, way|
      Bench.progress("frames: #{what}, #{name}")
      drain.ready(wire) { |socket| Bench::Measure.time { way.call(socket, file, length, max) } }
    end
    samples.transform_values { |own| own.map(&:cpu) }
  end
end

def per_gigabyte(seconds, length)
  Bench::Statistics.estimate(seconds.map { |own| own * 1e9 / length })
end

def objects(file, length)
  Bench::Drain.open do |drain|
    counts = Array.new(3) do
      drain.ready(length + (9 * (length / (16 * Bench::KIB)))) do |socket|
        before = GC.stat(:total_allocated_objects)
        S.copy_data_frames(socket, file, 0, length, stream_id: STREAM)
        GC.stat(:total_allocated_objects) - before
      end
    end
    counts.last
  end
end

SETTINGS = { quick: { rounds: 5, length: 32 * Bench::MIB }, full: { rounds: 31, length: 64 * Bench::MIB } }.freeze

Bench.run("frames", CLAIM, **SETTINGS) do |report, rounds:, length:|
  Bench::SourceFile.open(length) do |file|
    measure(file, length, 3, WAYS, FRAME_SIZES.first, "warming up") # the first connections of a process cost more
    by_size = FRAME_SIZES.to_h { |max| [max, measure(file, length, rounds, WAYS, max, Bench.size(max))] }
    by_size.each do |max, cpu|
      better = [READS, KERNEL].min_by { |way| Bench::Statistics.median(cpu.fetch(way)) }
      report.check("CPU against #{better}, frames of #{Bench.size(max)}",
                   Bench::Statistics.ratio(cpu.fetch(OURS), cpu.fetch(better)), at_most: 1.15)
    end
    smallest = by_size.fetch(FRAME_SIZES.first)
    report.check("CPU against #{RUBY}, frames of 16 KiB",
                 Bench::Statistics.ratio(smallest.fetch(OURS), smallest.fetch(RUBY)), at_most: 0.5)
    report.check("objects for #{Bench.size(length)}", Bench::Statistics.exactly(objects(file, length)), at_most: 8)
    figures = WAYS.keys.to_h do |way|
      [way, by_size.transform_values { |cpu| per_gigabyte(cpu.fetch(way), length) }]
    end
    report.table("CPU s/GB of #{Bench.size(length)}, by size of frame", ["frame", *WAYS.keys],
                 FRAME_SIZES.map { |max| [Bench.size(max), *figures.values.map { |own| own.fetch(max) }] })
    report.chart("frames", over: "frame", unit: "CPU s/GB", series: figures)

    sizes = AT_ONCE.to_h { |bytes| [Bench.size(bytes), native(:buffered, bytes)] }
    cpu = measure(file, length, rounds, sizes, FRAME_SIZES.first, "read at a time")
    report.table("CPU s/GB of frames of 16 KiB, by what is read and sent at a time", ["at a time", "CPU s/GB"],
                 cpu.map { |name, own| [name, per_gigabyte(own, length)] })
  end
end
