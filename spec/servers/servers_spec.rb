# frozen_string_literal: true

# Files, Middleware and the servers' hooks, on real servers over real connections.
require "zlib"
require_relative "../support/rack/conformance"
require_relative "../support/servers/server_process"
require_relative "../support/servers/wire"

module OnServers
  KEEP_ALIVE = %w[puma falcon webrick].freeze
  # Those on which a body writes to the socket itself.
  DIRECT = %w[puma falcon unicorn pitchfork].freeze
  SMALL = 8 * 1024
  LARGE = 3_000_017
  HUGE = 48 * 1024 * 1024

  class << self
    def server(name)
      (@servers ||= {})[name] ||= ServerProcess.start(name, Payload.dir, environment: { "RACK_SITE" => RackSite.root })
    end
  end
end

RSpec.shared_examples "files over connections" do |name|
  let(:server) { OnServers.server(name) }
  let(:wire) { connect }

  def connect(**options)
    Wire.new(Cleanup.close(server.connect(**options)))
  end

  # On a connection of its own.
  def fetch(target, headers = {}, method = "GET")
    once = connect
    once.call(method, target, headers)
  ensure
    once&.close
  end

  def target(size, by = "files")
    "/#{by}/#{File.basename(Payload.path(size))}"
  end

  def direct_calls
    Integer(fetch("/calls").body)
  end

  # A file as large as that, without the time to write it.
  def huge_file
    file = File.new(File.join(Payload.dir, "huge.bin"), "w+b")
    Cleanup.later { File.delete(file.path) }
    file.write(payload(OnServers::LARGE))
    file.truncate(OnServers::HUGE)
    Cleanup.close(file)
  end

  def huge_payload
    payload(OnServers::LARGE) + ("\0" * (OnServers::HUGE - OnServers::LARGE))
  end

  %w[files middleware logged linted].each do |by|
    it "sends whole files, small and large (#{by})" do
      [1, OnServers::SMALL, 40_000, 100_001, OnServers::LARGE].each do |size|
        answer = fetch(target(size, by))
        expect([answer.status, answer["content-length"]]).to eq([200, size.to_s])
        expect(answer.body).to be_payload(payload(size))
      end
    end

    it "sends ranges of them (#{by})" do
      size = OnServers::LARGE
      [[0, 0], [1, 70_000], [4_095, 2_000_000], [size - 100_000, size - 1]].each do |first, last|
        answer = fetch(target(size, by), { "range" => "bytes=#{first}-#{last}" })
        expect([answer.status, answer["content-range"]]).to eq([206, "bytes #{first}-#{last}/#{size}"])
        expect(answer["content-length"]).to eq((last - first + 1).to_s)
        expect(answer.body).to be_payload(payload(size).byteslice(first..last))
      end
    end

    it "answers HEAD without a body (#{by})" do
      requests = OnServers::KEEP_ALIVE.include?(name) ? 2 : 1
      requests.times do
        answer = wire.call("HEAD", target(OnServers::LARGE, by))
        expect([answer.status, answer["content-length"]]).to eq([200, OnServers::LARGE.to_s])
      end
    end
  end

  it "sends several ranges" do
    content = payload(OnServers::LARGE)
    answer = wire.call("GET", target(OnServers::LARGE), "range" => "bytes=5-9,100000-1100000,-7")
    expect(answer.status).to eq(206)
    expect(answer.parts.map(&:last)).to eq([content[5..9], content[100_000..1_100_000], content[-7..]])
  end

  it "keeps the connection, and answers on it in the order of the requests" do
    skip "#{name} ends every response with its connection" unless OnServers::KEEP_ALIVE.include?(name)

    sizes = [OnServers::LARGE, OnServers::SMALL, 100_001, OnServers::LARGE, 1]
    2.times do
      sizes.each { |size| wire.send_request("GET", target(size)) }
      expect(sizes.map { wire.answer("GET") }.map { |answer| [answer.status, answer.body] })
        .to eq(sizes.map { |size| [200, payload(size)] })
    end
  end

  %w[files linted].each do |by|
    it "keeps it through responses without a body, too (#{by})" do
      skip "#{name} ends every response with its connection" unless OnServers::KEEP_ALIVE.include?(name)

      large = target(OnServers::LARGE, by)
      etag = fetch(large)["etag"]
      [["GET", large, { "if-none-match" => etag }, 304], ["HEAD", large, {}, 200], ["OPTIONS", large, {}, 200],
       ["HEAD", large, { "if-none-match" => etag }, 304], ["GET", large, { "range" => "bytes=9999999-" }, 416],
       ["GET", large, { "if-match" => '"x"' }, 412], ["GET", "/#{by}/none", {}, 404],
       ["HEAD", "/#{by}/none", {}, 404]].each do |method, target, headers, status|
        expect(wire.call(method, target, headers).status).to eq(status)
        expect(wire.call("GET", large).body).to be_payload(payload(OnServers::LARGE))
      end
    end
  end

  it "ends the connection behind the response where it is asked to" do
    answer = wire.call("GET", target(OnServers::LARGE), "connection" => "close")
    expect(answer.body).to be_payload(payload(OnServers::LARGE))
    expect(wire).to be_closed
  end

  it "ends it behind a response to HTTP/1.0, which is whole" do
    wire.send_request("GET", target(OnServers::LARGE), {}, version: "1.0")
    expect(wire.answer("GET").body).to be_payload(payload(OnServers::LARGE))
    expect(wire).to be_closed
  end

  it "lets another body compress what it sends" do
    answer = wire.call("GET", target(OnServers::LARGE, "deflated"), "accept-encoding" => "gzip")
    expect(answer["content-encoding"]).to eq("gzip")
    expect(Zlib.gunzip(answer.body)).to be_payload(payload(OnServers::LARGE))
  end

  %w[inverted inverted-logged].each do |by|
    it "lets another body change what it sends (#{by})" do
      answer = fetch(target(100_001, by))
      expect(answer.body.unpack("C*").map { |byte| byte ^ 255 }.pack("C*")).to be_payload(payload(100_001))
    end
  end

  it "leaves the framing to the server where the length is not announced" do
    answer = wire.call("GET", target(OnServers::LARGE, "lengthless"))
    expect(answer.status).to eq(200)
    expect(answer.body).to be_payload(payload(OnServers::LARGE))
  end

  it "takes the direct way exactly where it is open" do
    direct = OnServers::DIRECT.include?(name) ? 1 : 0
    { "files" => direct, "middleware" => direct, "logged" => direct, "finished" => direct, "linted" => 0,
      "deflated" => 0, "lengthless" => name.match?(/unicorn|pitchfork/) ? direct : 0 }.each do |by, calls|
      before = direct_calls
      fetch(target(OnServers::LARGE, by), { "accept-encoding" => "gzip" })
      expect([by, direct_calls - before]).to eq([by, calls])
    end
  end

  it "keeps no descriptor of a client that is gone" do
    path = huge_file.path
    fetch(target(OnServers::SMALL)) # whatever is opened once is open now
    eventually("the server at rest") { server.open_for(path).zero? }
    %w[files middleware].product(%w[GET HEAD], [{}, { "range" => "bytes=1000-40000000" }]).each do |by, method, range|
      leaving = connect(receive_buffer: 16 * 1024)
      leaving.send_request(method, "/#{by}/#{File.basename(path)}", range)
      leaving.head
      leaving.close
    end
    eventually("all closed", within: 20) { server.open_for(path).zero? }
    expect(fetch(target(OnServers::SMALL)).body).to be_payload(payload(OnServers::SMALL))
  end

  it "closes the connection at once when the file is truncated midway" do
    skip "rackup reads the whole body before WEBrick sends the head" if name == "webrick"

    %w[files middleware].each do |by|
      file = huge_file
      client = connect(receive_buffer: 16 * 1024)
      client.send_request("GET", "/#{by}/#{File.basename(file.path)}")
      status, headers = client.head
      expect([status, headers["content-length"]]).to eq([200, OnServers::HUGE.to_s])
      start = client.read_some(64 * 1024)
      file.truncate(OnServers::LARGE)
      received = nil
      expect(seconds { received = start + client.rest }).to be < 10
      expect(received.bytesize).to be_between(start.bytesize, OnServers::HUGE - 1)
      expect(received).to be_payload(huge_payload.byteslice(0, received.bytesize))
    end
  end

  it "gives up a client that does not read, and serves others meanwhile" do
    skip "WEBrick has no timeout, and none is given to it" if name == "webrick"

    patient = ServerProcess.start(name, Payload.dir, environment: { "WORKERS" => "2", "RACK_SITE" => RackSite.root })
    Cleanup.later { patient.stop }
    file = huge_file
    stalled = Wire.new(Cleanup.close(patient.connect(receive_buffer: 16 * 1024)))
    stalled.send_request("GET", "/files/#{File.basename(file.path)}", { "range" => "bytes=1-" })
    expect(stalled.head.first).to eq(206)
    eventually("the file to be open") { patient.open_for(file.path) > 1 }

    answered = 0
    until patient.open_for(file.path).zero?
      other = Wire.new(patient.connect)
      expect(seconds { expect(other.call("GET", target(OnServers::SMALL)).status).to eq(200) }).to be < 2
      other.close
      answered += 1
    end
    expect(answered).to be > 3
    received = stalled.rest
    expect(received.bytesize).to be < OnServers::HUGE - 1
    expect(received).to be_payload(huge_payload.byteslice(1, received.bytesize))
  end

  describe "whatever a file server owes its clients" do
    let(:client) do
      lambda do |method, target, headers = {}|
        answer = fetch(target, headers, method)
        # WEBrick takes it off multipart/byteranges, which the connection's end delimits.
        answer.headers["content-length"] ||= answer.body.bytesize.to_s if name == "webrick" && answer.status == 206
        answer
      end
    end

    before do |example|
      outside = example.description.include?(" /../..")
      skip "WEBrick refuses such a path itself, with 400" if name == "webrick" && outside
    end

    it_behaves_like "a file server"
  end
end

RSpec.describe "files on real servers" do
  %w[puma falcon unicorn pitchfork webrick].each do |name|
    describe name do
      it_behaves_like "files over connections", name
    end
  end
end
