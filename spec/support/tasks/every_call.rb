# frozen_string_literal: true

# Every call of the library once, in each of its ways, and in a process as small as can be, for tools that make each
# step slow: valgrind, and with GC_STRESS=1 a garbage collection at every allocation, and a thread beside it that moves
# what can be moved. Objects that C holds and Ruby does not know of are then gone, or elsewhere, at once.

require "hyperion/http/sendfile"
require "tempfile"

S = Hyperion::Http::Sendfile
%w[cleanup channels minimal_scheduler http2_frames].each { |file| require_relative "../#{file}" }

STRESS = ENV["GC_STRESS"] == "1"
CONTENT = Random.new(1).bytes(300_007).freeze
FILE = Tempfile.create("every_call").tap do |file|
  file.binmode
  file.write(CONTENT)
  file.flush
  File.delete(file)
end
HEAD = "HTTP/1.1 200 OK\r\n\r\n"

# Runs the block in which the calls are made; what it sends has to be what it returns.
def check(name, kind = :tcp, nonblock: true, small: false)
  channel = Channels.open(kind, nonblock: nonblock, small: small)
  received = String.new(capacity: 1 << 20)
  reader = Thread.new { drain(channel.peer, received) }
  expected = stressed { yield channel.out }
  channel.finish
  reader.join
  received = channel.decode(received)
  abort "#{name}: #{received.bytesize} bytes, of #{expected.bytesize} expected" unless received == expected
  Cleanup.run
end

# Without allocating anything, or it would be at it all the time.
def drain(peer, received)
  piece = String.new(capacity: 65_536)
  received << piece while peer.readpartial(65_536, piece)
rescue EOFError, OpenSSL::SSL::SSLError
  nil # a socket that is full when it is closed takes no close_notify
end

YOUNG_ONLY = 1 # a collection of all objects takes fifty times as long

def stressed
  GC.stress = YOUNG_ONLY if STRESS
  yield
ensure
  GC.stress = false
end

def in_fiber
  scheduler = MinimalScheduler.new
  Fiber.set_scheduler(scheduler)
  value = nil
  Fiber.schedule { value = yield }
  Fiber.set_scheduler(nil)
  value
end

def raised(error)
  yield
  abort "no #{error}"
rescue error => e
  e
end

if STRESS
  Thread.new do
    loop { GC.compact && sleep(0.02) }
  end
end

# The primitives, with and without a block.
{ copy: 65_536, copy_splice: 65_536, copy_small: 5_000 }.each do |primitive, length|
  check(primitive) do |out|
    moved, = S.public_send(primitive, out, FILE, 7, length)
    S.public_send(primitive, out, FILE, 7 + moved, 100) { |bytes, _| abort primitive.to_s unless bytes == 100 }
    CONTENT.byteslice(7, moved + 100)
  end
end
check(:copy_splice_into_pipe) do |out|
  pipes = IO.pipe
  moved, = S.copy_splice_into_pipe(out, FILE, 0, 50_000, *pipes)
  pipes.each(&:close)
  CONTENT.byteslice(0, moved)
end
check(:errors) do |out|
  raised(ArgumentError) { S.copy(out, FILE, -1, 1) }
  raised(TypeError) { S.copy_small(out, nil, 0, 1) }
  raised(RangeError) { S.copy(out, FILE, 1 << 62, 1 << 62) }
  raised(Errno::EBADF) { S.copy(out, 1 << 20, 0, 10) }
  raised(S::TruncatedError) { S.copy_to_socket(out, FILE, CONTENT.bytesize - 10, 20) }
  S.fadvise_sequential(FILE, 100)
  CONTENT.byteslice(-10, 10)
end

# The façade: every route, by a thread and by a fiber, to a socket that is always ready and to one that fills up.
ways = { small: [:tcp, 3_000], sendfile: [:tcp, 200_000], fd: [:fd, 100_000], memory: [:tcp, 150_000, false],
         pipe: [:pipe, 100_000], unix: [:unix, 100_000], tls12: [:tls12, 60_000], tls13: [:tls13, 60_000],
         wrapper: [:wrapper, 30_000] }
ways.to_a.product([false, true], [false, true]).each do |(name, (kind, length, nonblock)), fiber, small|
  length = [length, 40_000].min if small
  check(name, kind, nonblock: nonblock != false, small: small) do |out|
    totals = []
    send = -> { S.copy_to_socket(out, FILE, 11, length, head: HEAD, timeout: 20) { |sent| totals << sent } }
    sent = fiber ? in_fiber(&send) : send.call
    abort "#{name}: #{sent}" unless sent == length && totals.last == length
    HEAD.b + CONTENT.byteslice(11, length)
  end
end
{ "splice" => { "HYPERION_HTTP_SPLICE" => "1" }, "keep_gvl" => {} }.each do |name, environment|
  environment.each { |key, value| ENV[key] = value }
  S.keep_gvl = name == "keep_gvl"
  [3_000, 70_000].product([false, true]).each do |length, fiber|
    check(name, small: true) do |out|
      send = -> { S.copy_to_socket(out, FILE, 0, length, head: HEAD) }
      fiber ? in_fiber(&send) : send.call
      HEAD.b + CONTENT.byteslice(0, length)
    end
  end
  ENV.delete("HYPERION_HTTP_SPLICE")
end

# DATA frames: of each size that goes another way, from a file and from memory, and left before the end.
memory = [CONTENT, String.new(CONTENT)]
memory << IO::Buffer.for(CONTENT) if RUBY_VERSION >= "3.2"
frames = [FILE, *memory].product([16_384, 70_000], [0, 5], %i[tcp tls13 wrapper], [false, true])
frames.each do |source, max, padding, kind, fiber|
  length = fiber ? 40_000 : 100_000
  check("DATA frames of #{max} to #{kind}", kind, small: fiber) do |out|
    totals = []
    send = lambda do
      S.copy_data_frames(out, source, 11, length, stream_id: 3, max_frame_size: max, padding: padding, head: HEAD,
                                                  timeout: 20) { |sent| totals << sent }
    end
    sent = fiber ? in_fiber(&send) : send.call
    abort "DATA frames: #{sent}" unless sent == length && totals.last == sent
    region = CONTENT.byteslice(11, length)
    HEAD.b + Http2Frames.expected(region, stream_id: 3, max_frame_size: max, padding: padding)
  end
end
check("DATA frames left at a boundary") do |out|
  S.copy_data_frames(out, FILE, 0, 300_000, stream_id: 3, max_frame_size: 100_000) { break }
  raised(S::TruncatedError) { S.copy_data_frames(out, FILE, 0, 300_008, stream_id: 3, end_stream: false) }
  raised(S::TruncatedError) { S.copy_data_frames(out, CONTENT, 0, 300_008, stream_id: 3) }
  raised(ArgumentError) { S.copy_data_frames(out, CONTENT, 0, 1, stream_id: 0) }
  whole = CONTENT.byteslice(0, 300_000 / 16_384 * 16_384)
  [100_000].pack("N").byteslice(1, 3) + [0, 0, 3].pack("CCN") + CONTENT.byteslice(0, 100_000) +
    Http2Frames.expected(whole, stream_id: 3, end_stream: false)
end
check("memory to a socket") do |out|
  S.copy_to_socket(out, StringIO.new(CONTENT), 0, 100_000, head: HEAD)
  HEAD.b + CONTENT.byteslice(0, 100_000)
end
check("killed", small: true) do |out|
  sent = 0
  sender = Thread.new { S.copy_to_socket(out, FILE, 0, 300_000) { |bytes| sent = bytes } }
  sender.join(0.05)
  sender.kill.join
  CONTENT.byteslice(0, sent)
end
puts "every call: right, through #{GC.count} garbage collections"
