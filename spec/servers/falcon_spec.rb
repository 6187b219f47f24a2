# frozen_string_literal: true

# What a Falcon logs of clients that go away, or read nothing.
require_relative "../support/servers/server_process"
require_relative "../support/servers/wire"

RSpec.describe "a Falcon whose clients do not read to the end", needs: :http2 do
  let(:server) do
    ServerProcess.start("falcon", Payload.dir).tap { |process| Cleanup.later { process.stop } }
  end
  # Sparse: no time to write it.
  let(:path) do
    path = File.join(Payload.dir, "endless.bin")
    Cleanup.later { File.delete(path) }
    File.open(path, "wb") { |file| file.truncate(64 * 1024 * 1024) }
    path
  end

  def begin_to_read(by)
    Cleanup.close(server.connect(receive_buffer: 16 * 1024)).tap do |socket|
      socket.write("GET /#{by}/#{File.basename(path)} HTTP/1.1\r\nhost: localhost\r\n\r\n")
      socket.readpartial(1024)
    end
  end

  def none_left
    eventually("nothing open", within: 30) { server.open_for(path).zero? }
  end

  it "logs nothing of those that leave" do
    %w[files middleware].product([true, false]) do |by, reset|
      socket = begin_to_read(by)
      socket.setsockopt(Socket::Option.linger(true, 0)) if reset
      socket.close
    end
    none_left
    expect(server.log).to eq("")
  end

  it "logs a limited number of lines of those that stall, and holds nothing of them" do
    15.times { begin_to_read("files") }
    none_left
    expect(server.log.lines.size).to be_between(1, 10)
    expect(server.log).to include("TimeoutError")
    expect(server.log).not_to include("unhandled")
  end

  it "takes a client that leaves before a 304 for what it is" do
    require "hyperion/http/sendfile/falcon"
    remote = defined?(Protocol::HTTP::RemoteError) ? Protocol::HTTP::RemoteError : Errno::EPIPE
    Sync do
      ours, theirs = UNIXSocket.pair.each { |socket| Cleanup.close(socket) }
      theirs.write("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
      connection = S::Falcon.server(ours)
      connection.next_request
      theirs.close
      connection.write_response("HTTP/1.1", 304, {})
      expect { connection.write_body("HTTP/1.1", nil) }.to raise_error(remote)
    end
  end
end
