# frozen_string_literal: true

# The example server over real connections: what it answers, and what it refuses.

require "fileutils"
require "socket"
require "tmpdir"
require_relative "../../examples/server"

RSpec.describe FileServer do
  response = Struct.new(:status, :fields, :body)

  # One thread serves until the example ends.
  let(:directory) { Dir.mktmpdir("server").tap { |dir| Cleanup.later { FileUtils.rm_rf(dir) } } }
  let(:root) { File.join(directory, "root").tap { |dir| Dir.mkdir(dir) } }
  let(:content) { Random.bytes(100_000) }
  let(:server) do
    File.binwrite(File.join(root, "file.bin"), content)
    File.binwrite(File.join(root, "empty"), "")
    described_class.new(root, port: 0).tap do |server|
      thread = Thread.new { server.run }
      Cleanup.later { server.stop && thread.join }
    end
  end
  let(:client) { connect }

  def connect
    Cleanup.close(TCPSocket.new("127.0.0.1", server.port))
  end

  def request(target, *fields, method: "GET")
    "#{method} #{target} HTTP/1.1\r\n#{["host: localhost", *fields].map { |field| "#{field}\r\n" }.join}\r\n"
  end

  define_method(:receive) do |body: true|
    head = client.gets("\r\n\r\n") or raise EOFError, "no response"
    status, *lines = head.split("\r\n")
    fields = lines.to_h { |line| line.split(": ", 2) }
    response.new(status[/\d{3}/].to_i, fields, body ? client.read(Integer(fields.fetch("content-length"))) : "")
  end

  def ask(target = "/file.bin", *fields, method: "GET")
    client.write(request(target, *fields, method: method))
    receive(body: method != "HEAD")
  end

  it "sends a whole file" do
    answer = ask

    expect(answer.status).to eq(200)
    expect(answer.fields).to include("accept-ranges" => "bytes", "content-length" => "100000")
    expect(answer.body == content).to be(true)
  end

  {
    "a closed range" => ["bytes=10-19", 10..19],
    "one byte" => ["bytes=0-0", 0..0],
    "an open range" => ["bytes=99000-", 99_000..99_999],
    "a suffix" => ["bytes=-100", 99_900..99_999],
    "a suffix longer than the file" => ["bytes=-200000", 0..99_999],
    "a range that ends behind the file" => ["bytes=70000-200000", 70_000..99_999],
    "a unit in capitals" => ["Bytes=1-2", 1..2]
  }.each do |what, (range, bytes)|
    it "sends #{what}" do
      answer = ask("/file.bin", "range: #{range}")

      expect(answer.status).to eq(206)
      expect(answer.fields).to include("content-range" => "bytes #{bytes.min}-#{bytes.max}/100000",
                                       "content-length" => bytes.size.to_s)
      expect(answer.body == content[bytes]).to be(true)
    end
  end

  ["bytes=100000-", "bytes=100000-100001", "bytes=-0"].each do |range|
    it "refuses #{range} of 100000 bytes, and goes on" do
      answer = ask("/file.bin", "range: #{range}")

      expect(answer.status).to eq(416)
      expect(answer.fields).to include("content-range" => "bytes */100000")
      expect(ask.body == content).to be(true)
    end
  end

  ["bytes=2-1", "bytes=a-b", "bytes=-", "bytes=1.5-3", "bytes=0x0-5", "bytes=0-5x", "lines=0-1", "bytes 0-1",
   "bytes=0-1,5-6"].each do |range|
    it "sends the whole file for #{range}" do
      answer = ask("/file.bin", "range: #{range}")

      expect([answer.status, answer.body == content]).to eq([200, true])
      expect(answer.fields).not_to include("content-range")
    end
  end

  it "sends the whole file for a range that depends on a validator" do
    expect(ask("/file.bin", "range: bytes=0-1", "if-range: \"tag\"").body == content).to be(true)
  end

  it "sends the whole file for two Range fields" do
    expect(ask("/file.bin", "range: bytes=0-1", "range: bytes=0-1").status).to eq(200)
  end

  it "answers an empty file, of which any range is the whole" do
    expect(ask("/empty").body).to eq("")
    ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0"].each do |range|
      expect([range, ask("/empty", "range: #{range}").status]).to eq([range, 200])
    end
  end

  it "sends no body to HEAD, and knows no ranges there" do
    answer = ask("/file.bin", "range: bytes=0-1", method: "HEAD")

    expect(answer.status).to eq(200)
    expect(answer.fields).to include("content-length" => "100000")
    expect(ask.body == content).to be(true)
  end

  it "answers pipelined requests in their order" do
    client.write(request("/file.bin", "range: bytes=0-9") + request("/none") + request("/file.bin", "range: bytes=-9"))

    expect(Array.new(3) { receive.status }).to eq([206, 404, 206])
  end

  it "answers a request that comes byte by byte" do
    request("/file.bin").each_char { |char| client.write(char) }

    expect(receive.body == content).to be(true)
  end

  it "closes where it is asked to" do
    expect(ask("/file.bin", "connection: close").fields).to include("connection" => "close")
    expect(client.read).to eq("")
  end

  it "allows GET and HEAD only" do
    answer = ask(method: "DELETE")

    expect(answer.status).to eq(405)
    expect(answer.fields).to include("allow" => "GET, HEAD")
  end

  context "with a file outside of its directory" do
    before do
      Dir.mkdir(File.join(directory, "root-beside"))
      [File.join(directory, "secret"), File.join(directory, "root-beside", "secret")].each do |path|
        File.write(path, "secret")
      end
      File.symlink(File.join(directory, "secret"), File.join(root, "link"))
      File.symlink(directory, File.join(root, "up"))
    end

    %w[/../secret /%2e%2e/secret /..%2fsecret /file.bin/../../secret /../root-beside/secret /%2e%2e%2froot-beside/secret
       /link /up/secret //secret /%252e%252e/secret].each do |target|
      it "does not find #{target}" do
        expect(ask(target).status).to eq(404)
      end
    end
  end

  it "finds no directory, nor what no name can be" do
    statuses = ["/", "/file.bin/", "/#{"a" * 300}", "/%ff", "/%00", "/%zz"].map { |target| ask(target).status }

    expect(statuses).to eq([404, 404, 404, 404, 400, 400])
  end

  it "does not wait for the writer of a FIFO" do
    File.mkfifo(File.join(root, "fifo"))

    expect(ask("/fifo").status).to eq(404)
  end

  {
    "a head over 16 KiB" => ["GET / HTTP/1.1\r\nhost: a\r\nx: #{"x" * 20_000}\r\n\r\n", 431],
    "more fields than a hundred" => ["GET / HTTP/1.1\r\nhost: a\r\n#{"x: y\r\n" * 101}\r\n", 431],
    "a head that never ends" => ["G" * 40_000, 431],
    "no Host" => ["GET / HTTP/1.1\r\n\r\n", 400],
    "two Hosts" => ["GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400],
    "a space before the colon" => ["GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400],
    "another version" => ["GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505],
    "nonsense" => ["\x16\x03\x01\r\n\r\n", 400]
  }.each do |what, (bytes, status)|
    it "refuses #{what}, and closes" do
      client.write(bytes)

      expect(receive.status).to eq(status)
      expect(client.read).to eq("")
    end
  end

  it "takes no body for the next request" do
    client.write("GET /file.bin HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\nGET /none HTTP/1.1\r\nhost: a\r\n\r\n")

    expect(receive.fields).to include("connection" => "close")
    expect(client.read).to eq("")
  end

  it "gives up a client that sends no complete request" do
    stub_const("FileServer::Connection::IDLE_TIMEOUT", 0.2)
    client.write("GET /file.bin HTTP/1.1\r\n")

    expect(client.read).to eq("")
  end

  it "gives up a client that takes nothing, while it serves others" do
    stub_const("FileServer::Connection::SEND_TIMEOUT", 0.2)
    server
    File.truncate(File.join(root, "file.bin"), 64 << 20)

    expect do
      connect.write(request("/file.bin"))
      expect(ask("/file.bin", "range: bytes=0-99").body == content[0..99]).to be(true)
      eventually("the end of the transfer") { $stderr.string.include?("TimeoutError") }
    end.to output(/TimeoutError/).to_stderr
  end

  it "leaves no descriptor open, nor for the garbage collector to close" do
    ask
    before = open_fds.size
    GC.disable
    20.times do
      connection = connect
      connection.write(request("/file.bin", "connection: close"))
      connection.read
      connection.close
    end

    eventually("the descriptors to be closed") { Dir.children("/proc/self/fd").size <= before + 1 } # its own
  ensure
    GC.enable
  end
end
