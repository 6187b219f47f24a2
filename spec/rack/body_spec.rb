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
    expect { body(parts).copy_to(channel.out) }.to raise_error(S::TruncatedError)
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
end
