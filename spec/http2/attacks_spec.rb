# frozen_string_literal: true

# Clients that make a server work, or log, more than they do themselves.
require "json"
require "spec_helper"
require "async"
require "hyperion/http/sendfile/http2"
require_relative "../support/http2/frames_client"
require_relative "../support/http2/served"

RSpec.describe "a server of files by HTTP/2, under attack", needs: :http2 do
  calm = 11 # ENHANCE_YOUR_CALM
  # The resets that README allows at once, and those that it allows while 5,000 come, on a busy machine.
  most = 256 + 500

  # A client that sends what it likes.
  let(:frames_client) { Class.new(FramesClient) { public :send_frame, :frame, :receive_frame } }
  let(:server) { ServedByHTTP2.server("http2", timeout: 0.5) }
  let(:path) { "/files/#{File.basename(Payload.path(70_000))}" }

  def client(to: server, **options)
    frames_client.new(Cleanup.close(to.connect), **options)
  end

  def seen
    JSON.parse(client.get("/seen").body, symbolize_names: true)
  end

  def expect_service
    expect(client(grant: true).get(path).body).to be_payload(payload(70_000))
    eventually("the end of every response") { seen[:open].zero? }
    expect(seen[:closed_again]).to eq(0)
  end

  # Sends what the block says, until the server ends the connection.
  def attack(one, times, &)
    begin
      times.times(&)
    rescue Errno::EPIPE, Errno::ECONNRESET
      nil # it has
    end
    one.drain
  rescue Errno::EPIPE
    nil # nor can be answered what it has said before
  end

  it "survives thousands of CONTINUATION frames" do
    one = client
    flood = one.frame(FramesClient::HEADERS, 0, 1, "") + (one.frame(FramesClient::CONTINUATION, 0, 1, "") * 2_000)
    attack(one, 1) { one.socket.write(flood) }
    expect_service
  end

  it "decodes no header block beyond 64 KiB" do
    [65_536, 65_537].each do |size|
      one = client
      flood = one.frame(FramesClient::HEADERS, FramesClient::END_HEADERS, 1, "\x82" * size) # :method GET, many times
      one.answers[1] = FramesClient::Answer.new(nil, "".b, false, nil, [], 0)
      one.catch_up # it has acknowledged the server's settings, and with them the size of frames
      one.socket.write(flood)
      one.receive { one.answers[1].reset || one.goaway }
      expect(one.goaway).to eq(size == 65_536 ? nil : calm) # such a request is malformed, whatever its size
    end
    expect_service
  end

  it "ends a connection whose streams are reset as fast as they come" do
    before = seen[:calls]
    one = client(window: 0)
    attack(one, 5_000) { one.reset(one.request(path)) }
    expect(one.goaway).to eq(calm).or be_nil # it may be lost with what was not read
    expect(seen[:calls] - before).to be <= most
    expect_service
  end

  it "ends a connection that has its streams reset" do
    before = seen[:calls]
    one = client(window: 0)
    attack(one, 5_000) do
      id = one.request(path)
      one.send_frame(FramesClient::WINDOW_UPDATE, 0, id, [0].pack("N"))
    end
    expect(seen[:calls] - before).to be <= most
    expect_service
  end

  it "lets a client reset what it does not need any more" do
    one = client(window: 0, connection_window: FramesClient::LARGE_WINDOW)
    2.times do
      ids = Array.new(100) { one.request(path) }
      one.receive { ids.all? { |id| one.answers[id].headers } }
      ids.each { |id| one.reset(id) }
    end
    one.initial_window = FramesClient::LARGE_WINDOW
    expect(one.get(path).body).to be_payload(payload(70_000))
  end

  it "logs a bounded number of lines for streams that starve, and of clients that say nothing" do
    server = ServerProcess.command(ServedByHTTP2::SCRIPT, "PORT", "http2", Payload.dir,
                                   environment: { "TIMEOUT" => "0.2", "CONSOLE_LEVEL" => "warn" })
    Cleanup.later { server.stop }
    one = client(to: server, window: 0)
    ids = Array.new(100) { one.request(path) }
    ids.each { |id| expect(one.answer(id).reset).to eq(2) }
    20.times { client(to: server).socket.close }
    20.times { server.connect.close }
    expect(client(to: server, grant: true).get(path).body).to be_payload(payload(70_000))
    expect(server.log.lines.size).to be_between(1, 10)
  end

  # A client can send such frames by the thousand, with many streams open.
  it "applies what a client sets once" do
    ours, theirs = UNIXSocket.pair.each { |io| Cleanup.close(io) }
    applied = 0
    Sync do |task|
      client = FramesClient.new(theirs)
      server = S::HTTP2.server(ours)
      serving = task.async { server.each { nil } }
      allow(server).to receive(:update_remote_settings).and_wrap_original do |original, *changes|
        applied += 1
        original.call(*changes)
      end
      5.times { |index| client.initial_window = index }
      client.catch_up
    ensure
      server&.close
      serving&.stop
    end
    expect(applied).to eq(5)
  end
end
