# frozen_string_literal: true

# What the middleware takes over, and what it leaves alone. That the bytes arrive is for spec/servers.
require "rack/body_proxy"
require "rack/files"
require "rack/lint"
require "rack/mock_request"
require "hyperion/http/sendfile/rack"

RSpec.describe S::Middleware do
  size = 100_003

  # As send_file of a framework answers.
  file_like = Class.new do
    attr_reader :to_path, :closed

    def initialize(path)
      @to_path = path
    end

    def each
      yield "read by the server"
    end

    def close
      @closed = true
    end
  end

  let(:socket) { Cleanup.close(UNIXSocket.pair.first) }
  let(:path) { Payload.path(size) }
  let(:body) { file_like.new(path) }
  let(:headers) { { "x-first" => "1", "content-length" => size.to_s, "x-last" => "2" } }

  before { allow(S::ServerSocket).to receive(:for).and_return(socket) }

  def response(status, headers, body, env = {})
    described_class.new(->(_) { [status, headers, body] }).call(env).tap do |_, _, answer|
      Cleanup.later { answer.close if answer.respond_to?(:close) }
    end
  end

  def segments(*answer)
    body = response(*answer).last
    body.segments if S::FileBody === body
  end

  def stock(headers = {})
    Rack::Files.new(Payload.dir).call(Rack::MockRequest.env_for("/#{File.basename(path)}", headers))
  end

  it "takes over a body with a path, and leaves status and headers as they are" do
    status, fields, answer = response(200, headers, body)
    expect([status, fields, fields.to_a]).to eq([200, headers, headers.to_a])
    expect([answer.segments, answer.file.path]).to eq([[[0, size]], path])
  end

  it "takes a Pathname, as of Rails.root.join" do
    answer = response(200, headers, file_like.new(Pathname(path))).last
    expect([answer.segments, answer.file.path]).to eq([[[0, size]], path])
  end

  it "says what its options can be" do
    ["30", -1, :long, Float::NAN].each do |timeout|
      expect { described_class.new(proc {}, timeout: timeout) }.to raise_error(ArgumentError, /\Atimeout/)
    end
    expect { described_class.new(nil) }.to raise_error(ArgumentError, /\Aapp/)
    expect(described_class.new(proc {}, timeout: nil)).to be_a(described_class)
  end

  it "leaves no file open when its thread is killed" do
    app = described_class.new(->(_) { [200, headers, body] })
    expect(kill_after_open { app.call({}) }).to be_closed
  end

  it "closes the app's body with its own" do
    answer = response(200, headers, body).last
    expect { answer.close }.to change(body, :closed).to(true)
    expect(answer.file).to be_closed
  end

  it "leaves no file open" do
    expect { response(200, headers, body).last.close }.not_to leak_fds
    expect { response(200, headers.merge("content-length" => "1"), body) }.not_to leak_fds
  end

  it "announces the length of what has none" do
    _, fields, answer = response(200, { "x" => "y" }.freeze, body)
    expect(fields).to eq("x" => "y", "content-length" => size.to_s)
    expect(answer).to be_a(S::FileBody)
  end

  it "takes over what Rack::Files answers, whole and one range, also in a BodyProxy" do
    [[{}, [0, size]], [{ "HTTP_RANGE" => "bytes=7-90000" }, [7, 89_994]]].each do |request, region|
      status, fields, body = stock(request)
      expect(segments(status, fields, body)).to eq([region])
      expect(segments(status, fields, Rack::BodyProxy.new(body) { nil })).to eq([region])
    end
  end

  it "takes over a small range, too, for its own body stays open where it is not read to its end" do
    expect(segments(*stock({ "HTTP_RANGE" => "bytes=7-26" }))).to eq([[7, 20]])
  end

  it "reads header names as Rack 2 has them, too" do
    expect(segments(200, { "Content-Length" => size.to_s }, body)).to eq([[0, size]])
    expect(segments(200, { "Transfer-Encoding" => "chunked" }, body)).to be_nil
  end

  it "knows them by any letters" do
    expect(response(200, { "Content-length" => size.to_s }, body)[1].keys).to eq(%w[Content-length])
    expect(segments(200, { "Content-length" => "5" }, body)).to be_nil
    expect(segments(200, { "Transfer-encoding" => "chunked" }, body)).to be_nil
  end

  it "can do with its own body, where something else iterates that" do
    content = +""
    response(200, headers, body).last.each { |chunk| content << chunk }
    expect(content).to be_payload(payload(size))
  end

  describe "leaves alone" do
    after { expect(@answer.last).to equal(@body) }

    def leave(status, headers, body, env = {})
      @body = body
      @answer = response(status, headers, body, env)
      expect(@answer.first(2)).to eq([status, headers])
    end

    it("several ranges") { leave(*stock({ "HTTP_RANGE" => "bytes=0-50000,60000-99999" })) }
    it("bodies of other kinds") { leave(200, headers, ["x" * size]) }
    it("a path that is nil") { leave(200, headers, file_like.new(nil)) }
    it("a file that is not there") { leave(200, headers, file_like.new("#{path}-none")) }
    it("what is not a path") { ["\0", 7, Object.new].each { |path| leave(200, headers, file_like.new(path)) } }
    it("a folder") { leave(200, headers, file_like.new(Payload.dir)) }
    it("a length that is not the file's") { leave(200, headers.merge("content-length" => "5"), body) }
    it("a range that is not the body's") { leave(206, headers.merge("content-range" => "bytes 0-9/#{size}"), body) }
    it("a transfer coding") { leave(200, { "transfer-encoding" => "chunked" }, body) }
    it("a response that hijacks") { leave(200, headers.merge("rack.hijack" => proc {}), body) }
    it("a connection that was hijacked") { leave(200, headers, body, { "rack.hijack_io" => socket }) }
    it("a response without a body") { [204, 304].each { |status| leave(status, headers, body) } }

    it "a small file" do
      leave(200, {}, file_like.new(Payload.path(1000)))
    end

    it "a FIFO, which is not opened" do
      fifo = File.join(Payload.dir, "fifo")
      File.mkfifo(fifo)
      Cleanup.later { File.delete(fifo) }
      allow(File).to receive(:new).and_call_original
      leave(200, {}, file_like.new(fifo))
      expect(File).not_to have_received(:new).with(fifo, any_args)
    end

    it "what Rack::Lint wraps" do
      env = Rack::MockRequest.env_for("/#{File.basename(path)}", "SERVER_PROTOCOL" => "HTTP/1.1")
      leave(*Rack::Lint.new(Rack::Files.new(Payload.dir)).call(env))
    end

    it "everything, where there is no socket to write to" do
      allow(S::ServerSocket).to receive(:for).and_return(nil)
      leave(200, headers, body)
    end
  end
end

RSpec.describe S::ServerSocket do
  it "has no socket for HEAD, for an unknown server, nor where Puma's name stands for something else" do
    socket = Cleanup.close(UNIXSocket.pair.first)
    [{ "REQUEST_METHOD" => "GET" }, { "REQUEST_METHOD" => "GET", "some.socket" => socket },
     { "REQUEST_METHOD" => "HEAD", "puma.socket" => socket }, { "REQUEST_METHOD" => "GET", "puma.socket" => socket },
     { "REQUEST_METHOD" => "GET", "protocol.http.request" => Object.new }].each do |env|
      expect(described_class.for(env)).to be_nil
    end
  end

  it "counts no prerelease among the versions that were read" do
    server = S.const_get(:ServerSocket).send(:const_get, :Server)
    { "8.0.2" => true, "9.0.0.beta1" => false, "9.0.0" => false, "8.1.0.rc1" => false }.each do |version, known|
      stub_const("SomeServer::VERSION", version)
      some = server.new("some.socket", "SomeServer", "SomeServer::VERSION", ">= 6.0.1", "< 9")
      expect(some.known?).to be(known), version
    end
  end

  it "is open to no block but a server's" do
    socket = Cleanup.close(UNIXSocket.pair.first)
    expect(described_class.open?(socket, proc {}, 1)).to be(false)
    expect(described_class.open?(socket, :itself.to_proc, 1)).to be(false)
    expect(described_class.open?(socket, [].method(:push).to_proc, 1)).to be(false)
  end

  # Puma as far as its frame shows.
  puma = Class.new do
    def self.name
      "Puma::Server"
    end

    def iterate(body, socket, io_buffer: "", chunked: false, content_length: 1)
      body.each { |part| [part, socket, io_buffer, chunked, content_length] }
    end
  end

  it "is open to Puma's block when the head is out and that length announced, and not otherwise" do
    socket = Cleanup.close(UNIXSocket.pair.first)
    open = lambda do |to = socket, **frame|
      body = Object.new
      body.define_singleton_method(:each) { |&block| S::ServerSocket.open?(socket, block, 1) }
      puma.new.iterate(body, to, **frame)
    end
    expect(open.call).to be(true)
    expect(open.call(Object.new)).to be(false)
    [{ io_buffer: "HTTP/1.1 200 OK" }, { chunked: true }, { content_length: 2 }].each do |frame|
      expect([frame, open.call(**frame)]).to eq([frame, false])
    end
  end
end
