# frozen_string_literal: true

# Calls of everything that sig/ declares, with arguments of every kind that it allows, while RBS's run-time test looks
# at what goes in and comes out, blocks included. Each answer has its expected class besides, for a method that the
# test has not taken hold of.

require "async"
require "openssl"
require "socket"
require "stringio"
require "tempfile"
require "hyperion/http/sendfile/rack"

S = Hyperion::Http::Sendfile
CONTENT = Random.new(1).bytes(300_000)
FILE = Tempfile.create("types").tap do |file|
  file.binmode
  file.write(CONTENT)
  file.flush
end
at_exit { File.delete(FILE.path) }

def to_socket
  out, peer = UNIXSocket.pair
  reader = Thread.new { peer.read }
  yield(out).tap { out.close unless out.closed? }
ensure
  out&.close
  reader&.join
end

def expect(kind, value)
  case value
  when kind then value
  else abort "types: #{value.inspect} is no #{kind}"
  end
end

def raised(error)
  yield
  abort "types: no #{error}"
rescue error => e
  e
end

POSITIONED = Object.new.tap { |source| source.define_singleton_method(:pread) { |n, at, _| CONTENT.byteslice(at, n) } }
STREAM = Class.new do
  def initialize = @rest = StringIO.new(CONTENT)
  def read(length, buffer) = @rest.read(length, buffer)
end

[FILE, FILE.fileno, POSITIONED, StringIO.new(CONTENT), STREAM.new].each do |source|
  expect(Integer, to_socket { |out| S.copy_to_socket(out, source) })
end
%i[copy_to_socket copy_to_socket_blocking].each do |name|
  [nil, 1, 1.5, 3r, :io].each do |timeout|
    options = { head: "h", timeout: timeout }
    expect(Integer, to_socket { |out| S.public_send(name, out, FILE, 1, 100_000, **options) { |sent| sent } })
  end
  expect(Integer, to_socket { |out| S.public_send(name, out.fileno, FILE, 0, nil, head: nil) })
  expect(Integer, S.public_send(name, StringIO.new, FILE))
end
Sync { expect(Integer, to_socket { |out| S.copy_to_socket(out, FILE, 0, 300_000) { |sent| sent } }) }

sources = [FILE, "memory" * 10_000]
sources << IO::Buffer.for("b" * 50_000) if RUBY_VERSION >= "3.2"
sources.each do |source|
  expect(Integer, to_socket do |out|
    S.copy_data_frames(out, source, 1, 40_000, stream_id: 1, max_frame_size: 20_000, end_stream: false, padding: 3,
                                               head: "h", timeout: 2) { |sent| sent }
  end)
end
expect(Integer, S.data_frames_window(100_000, max_frame_size: 20_000, padding: 1, end_stream: true))

truncated = raised(S::TruncatedError) { to_socket { |out| S.copy_to_socket(out, FILE, 0, 400_000) } }
timeout = raised(S::TimeoutError) { S.copy_to_socket(UNIXSocket.pair.first, FILE, 0, 300_000, timeout: 0.01) }
unknown = raised(IOError) { S.copy_to_socket(Class.new { def write(_) = raise(IOError) }.new, STREAM.new) }
[truncated, timeout, unknown].each do |error|
  expect(Integer, error.bytes_sent)
  expect(error == unknown ? nil : Integer, error.bytes_expected)
  expect(true, error.torn?)
end
S::TruncatedError.new(1, 2, torn: false)
S::TimeoutError.new(1, nil, 2.5, torn: true)

context = OpenSSL::SSL::SSLContext.new
ssl = OpenSSL::SSL::SSLSocket.new(UNIXSocket.pair.first, context)
[UNIXSocket.pair.first, 1, ssl, StringIO.new].each { |out| expect(Symbol, S.fast_path_kind(out)) }
[S.enable_ktls(OpenSSL::SSL::SSLContext.new), S.ktls?(ssl), S.ktls?(nil), S.supported?, S.splice_supported?,
 S.splice_runtime_supported?, S.keep_gvl?, S.sendfile_enabled?].each { |answer| expect(answer ? true : false, answer) }
S.keep_gvl = false
S.sendfile_enabled = true
expect(nil, S.mark_splice_unsupported!)
expect(Hash, S.stats)
expect(Symbol, S.platform_tag)
expect(Integer, S.small_file_threshold)
expect(Symbol, S.fadvise_sequential(FILE, 10))
expect(Symbol, S.fadvise_sequential(FILE.fileno, 10, 5))
pipe = IO.pipe
%i[copy copy_splice copy_splice_into_pipe].each do |name|
  rest = name == :copy_splice_into_pipe ? pipe : []
  expect(Array, to_socket { |out| S.public_send(name, out, FILE, 0, 100_000, *rest) { |bytes| bytes } })
  expect(Array, to_socket { |out| S.public_send(name, out.fileno, FILE.fileno, 0, 10, *rest) })
end
expect(Integer, to_socket { |out| S.copy_small(out, FILE, 0, 100, "head") { |bytes, of_head| [bytes, of_head] } })

files = S::Files.new(File.dirname(FILE.path), { "cache-control" => "public", "vary" => %w[a b] }, "text/plain",
                     symlinks: :follow, etag: %i[inode size mtime], precompressed: %w[br gzip], max_ranges: 3,
                     max_overlaps: 1, timeout: nil)
expect(String, files.root)
S::Files.new(nil, nil, etag: false, precompressed: true)
request = { "REQUEST_METHOD" => "GET", "PATH_INFO" => "/#{File.basename(FILE.path)}" }
["bytes=0-9", "bytes=0-9,100-109", nil].each do |range|
  status, headers, body = files.call(request.merge("HTTP_RANGE" => range).compact)
  expect(Integer, status)
  expect(Hash, headers)
  body.each { |chunk| expect(String, chunk) }
  body.close if body.respond_to?(:close)
end
expect(Array, files.serving(request, FILE.path))
expect(Array, files.call("REQUEST_METHOD" => "GET", "PATH_INFO" => "/none"))
expect(Array, S::Middleware.new(files, timeout: 5).call(request))
body = S::FileBody.new(File.open(FILE.path, "rb"), ["a", [1, 5]], timeout: 3, destination: nil)
expect(Array, [body.file, body.segments, body.bytesize, body.timeout])
to_socket { |out| body.copy_to(out, head: "h") }
body.close
S::FileBody.new(nil, ["text"], timeout: nil).each { |chunk| expect(String, chunk) }
