# frozen_string_literal: true

# The body by itself, through the server and past it.
require "hyperion/http/sendfile/rack"

RSpec.describe S::FileBody do
  size = 200_003
  let(:segments) { ["head\r\n", [5, 70_000], "\r\nbetween", "\r\n", [0, 1], [190_000, 10_003], "\r\nend"] }
  let(:file) { private_payload_file(size, "rb") }
  let(:all) do
    segments.map { |segment| String === segment ? segment.b : payload(size).byteslice(*segment) }.join
  end

  def body(parts = segments, **options)
    described_class.new(file, parts, timeout: 5, **options)
  end

  it "yields its segments in order, in pieces that are the server's to keep" do
    pieces = body.to_enum.to_a
    expect(pieces.join).to be_payload(all)
    expect(pieces.map(&:bytesize).max).to eq(described_class::CHUNK)
    expect(pieces.map(&:object_id).uniq.size).to eq(pieces.size)
  end

  it "knows how many bytes that is" do
    expect(body.bytesize).to eq(all.bytesize)
  end

  %i[tcp unix].each do |kind|
    it "sends its segments to a socket, behind a head: #{kind}" do
      channel = channel(kind)
      reader = channel.read
      body.copy_to(channel.out, head: "HTTP/1.1 200 OK\r\n\r\n")
      channel.finish
      expect(reader.result).to be_payload("HTTP/1.1 200 OK\r\n\r\n".b + all)
    end
  end

  it "sends many small segments in few pieces, and counts their bytes" do
    parts = Array.new(300) { |i| ["part #{i}\r\n", [i * 500, 1 + (i * 13 % 5_000)]] }.flatten(1) << "\r\nend"
    channel = channel(:unix)
    reader = channel.read
    writes = 0
    %i[copy_part copy_to_socket].each do |name|
      allow(S).to receive(name).and_wrap_original do |call, *arguments, **options|
        writes += 1
        call.call(*arguments, **options)
      end
    end
    before = S.stats
    body(parts).copy_to(channel.out, head: (head = "head\r\n"))
    after = S.stats
    channel.finish
    expected = parts.map { |part| String === part ? part : payload(size).byteslice(*part) }.join
    expect(reader.result).to be_payload(head.b + expected)
    bytes = parts.grep(Array).sum(&:last)
    expect([after, before].map { |stats| stats[:bytes].values.sum }.reduce(:-)).to eq(bytes)
    expect([after, before].map { |stats| stats[:responses].values.sum }.reduce(:-)).to eq(1)
    expect(writes).to be < 100
  end

  it "raises for a small segment that is not there, among others, and leaves no connection that goes on" do
    channel = channel(:tcp)
    channel.read
    expect { body(["a", [size - 5, 10], "b"]).copy_to(channel.out) }.to raise_error(S::TruncatedError)
    expect(channel.out).to be_closed
  end

  it "sends Strings in whatever encoding, and those alone, too" do
    channel = channel(:tcp)
    reader = channel.read
    head = "x: \xc3\xa9\r\n\r\n".b
    body(["\u00e9", "\xff".b, [0, 10]]).copy_to(channel.out, head: head)
    described_class.new(nil, ["no file"], timeout: 5).copy_to(channel.out)
    channel.finish
    expect(reader.result).to be_payload([head, "\u00e9\xff".b, payload(size).byteslice(0, 10), "no file"].join)
  end

  it "raises where the file is too short, through the server and past it, and leaves no connection that goes on" do
    parts = [[size - 10, 100]]
    expect { body(parts).each { next } }.to raise_error(S::TruncatedError) { |e| expect(e.bytes_sent).to eq(10) }
    channel = channel(:tcp)
    channel.read
    other = described_class.new(private_payload_file(size, "rb"), parts, timeout: 5)
    expect { other.copy_to(channel.out) }.to raise_error(S::TruncatedError)
    expect(channel.out).to be_closed
  end

  it "gives up a reader that takes nothing for as long as it may" do
    channel = channel(:tcp, small: true)
    body = described_class.new(payload_file(4 << 20), [[0, 4 << 20]], timeout: 0.1)
    expect { body.copy_to(channel.out) }.to raise_error(S::TimeoutError)
  end

  it "reads again where a signal came in between (EINTR, which Ruby 3.1's pread raises)" do
    calls = 0
    allow(file).to receive(:pread).and_wrap_original do |pread, *arguments|
      (calls += 1).odd? ? raise(Errno::EINTR) : pread.call(*arguments)
    end
    expect(body.to_enum.to_a.join).to be_payload(all)
  end

  it "closes the file, and may be closed again" do
    closed = body
    2.times { closed.close }
    expect(file).to be_closed
  end

  describe "iterated to its end" do
    it "closes the file, which nobody else may do: Rails keeps the close to itself" do
      read = body
      expect(read.to_enum.to_a.join).to be_payload(all)
      expect(file).to be_closed
      2.times { read.close }
    end

    it "closes the file also where it does not get there" do
      expect { body.each { |chunk| Integer(chunk) } }.to raise_error(ArgumentError)
      expect(file).to be_closed
    end

    it "can't be iterated again, rather than be less than it was" do
      read = body
      read.each { next }
      expect { read.each { next } }.to raise_error(IOError)
    end

    it "is not iterated at all without a block" do
      each = body.each
      expect(file).not_to be_closed
      expect(each.to_a.join).to be_payload(all)
    end
  end

  describe "arguments" do
    {
      "file" => [["path", []], [7, []]],
      "segments" => [[nil, nil], [nil, "text"], [nil, [1]], [nil, [nil]], [nil, [[0, 1, 2]]], [nil, [%w[0 1]]],
                     [nil, [[0, 1]]], [$stdin, [[-1, 5]]], [$stdin, [[0, -5]]], [$stdin, [[0, nil]]]],
      "destination" => [[nil, [], { destination: "socket" }], [nil, [], { destination: 1 }]],
      "timeout" => ["30", -1, :long, Float::NAN, Complex(1, 1)].map { |value| [nil, [], { timeout: value }] }
    }.each do |name, calls|
      calls.each do |file, segments, options|
        it "are told by their name: #{name}, where it is #{[file, segments, options].compact.inspect}" do
          expect { described_class.new(file, segments, timeout: nil, **options.to_h) }
            .to raise_error(ArgumentError, /\A#{name}/)
        end
      end
    end

    it "may be a file that is not needed, and no time limit" do
      expect(described_class.new(nil, ["text"], timeout: nil).bytesize).to eq(4)
      expect(described_class.new(nil, [], timeout: 0.5).bytesize).to eq(0)
    end

    it "may have an encrypted destination, as of HTTP/2" do
      require "openssl"
      encrypted = OpenSSL::SSL::SSLSocket.new(Cleanup.close(UNIXSocket.pair.first))
      expect { described_class.new(nil, [], timeout: nil, destination: encrypted) }.not_to raise_error
    end
  end
end
