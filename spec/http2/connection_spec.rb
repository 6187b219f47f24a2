# frozen_string_literal: true

# Files by HTTP/2, seen frame by frame: flow control, streams beside each other, and connections that go wrong.
require "json"
require_relative "../support/http2/frames_client"
require_relative "../support/http2/served"

RSpec.shared_context "with connections by HTTP/2" do
  huge = 64 * 1024 * 1024
  let(:encrypted) { false }

  def client(receive_buffer: nil, **options)
    FramesClient.new(connect(receive_buffer), **options)
  end

  def connect(receive_buffer)
    socket = Cleanup.close(server.connect(receive_buffer: receive_buffer))
    socket.setsockopt(:TCP, :NODELAY, true) # it writes a frame at a time
    return socket unless encrypted

    context = OpenSSL::SSL::SSLContext.new
    context.alpn_protocols = ["h2"]
    Cleanup.close(OpenSSL::SSL::SSLSocket.new(socket, context)).tap do |ssl|
      ssl.sync_close = true
      ssl.connect
    end
  end

  def greedy(**options)
    client(window: FramesClient::LARGE_WINDOW, connection_window: FramesClient::LARGE_WINDOW, **options)
  end

  def seen
    one = client
    JSON.parse(one.get("/seen").body, symbolize_names: true)
  ensure
    one.socket.close
  end

  def target(size, by = "files")
    "/#{by}/#{File.basename(Payload.path(size))}"
  end

  # Sparse: no time to write it.
  define_method(:huge_file) do
    path = File.join(Payload.dir, "huge.bin")
    File.open(path, "wb") { |file| file.write(payload(3_000_017)) && file.truncate(huge) }
    Cleanup.later { File.delete(path) }
    path
  end

  define_method(:huge_payload) do
    payload(3_000_017) + ("\0" * (huge - 3_000_017))
  end

  def open_files(path)
    Dir.glob("/proc/#{server.pid}/fd/*").count do |fd|
      File.readlink(fd) == path
    rescue Errno::ENOENT
      false # closed meanwhile
    end
  end

  # No response has anything left of it.
  def settled(tasks: nil)
    eventually("the end of every response") do
      found = seen
      found[:open].zero? && found[:writing].zero? && (tasks.nil? || found[:tasks] <= tasks)
    end
    expect(seen[:closed_again]).to eq(0)
  end

  # The server can't write any more: what it has queued doesn't change.
  def blocked
    last = nil
    eventually("a full socket", every: 0.02) { last == (last = queued) && last.positive? }
  end

  # Bytes that the server's sockets hold.
  def queued
    File.readlines("/proc/net/tcp").drop(1).map(&:split)
        .select { |fields| fields[1].end_with?(format(":%04X", server.port)) }
        .sum { |fields| fields[4].to_i(16) }
  end
end

RSpec.describe "files over an HTTP/2 connection", needs: :http2 do
  include_context "with connections by HTTP/2"
  let(:server) { ServedByHTTP2.server("http2") }

  [0, 1, 1024, 16_384, 16_385, 65_536, 262_144, 3_000_017].each do |size|
    it "sends #{size} bytes as full frames, by whatever windows" do
      [client(grant: true), greedy].each do |one|
        answer = one.get(target(size))
        expect([answer.status, answer["content-length"]]).to eq([200, size.to_s])
        expect(answer.body).to be_payload(payload(size))
      end
      full, rest = size.divmod(FramesClient::MAX_FRAME_SIZE)
      last = greedy.get(target(size)).frames
      expect(last).to eq(([FramesClient::MAX_FRAME_SIZE] * full) + (rest.zero? && full.positive? ? [] : [rest]))
    end
  end

  it "sends frames as large as the client takes them" do
    size = 3_000_017
    answer = greedy(max_frame_size: 1 << 20).get(target(size))
    expect(answer.body).to be_payload(payload(size))
    expect(answer.frames.max).to be_between(64 * 1024, 256 * 1024)
    expect(answer.frames.size).to eq(size.fdiv(answer.frames.max).ceil)
  end

  it "closes each wrapper of a body once, whatever becomes of it" do
    one = client(window: 100, connection_window: FramesClient::LARGE_WINDOW)
    cut = one.request(target(3_000_017, "wrapped"))
    one.receive { one.answers[cut].body.bytesize == 100 }
    one.reset(cut)
    etag = one.get(target(3_000_017, "wrapped"), method: "HEAD")["etag"]
    expect(one.get(target(3_000_017, "wrapped"), { "if-none-match" => etag }).status).to eq(304)
    left = client(window: 0)
    left.request(target(3_000_017, "wrapped")).then { |id| left.receive { left.answers[id].headers } }
    left.socket.close
    settled
  end

  %w[files proxied wrapped middleware rack].each do |by|
    it "takes over whole files (#{by})" do
      size = 3_000_017
      before = seen[:bursts]
      expect(greedy.get(target(size, by)).body).to be_payload(payload(size))
      expect(seen[:bursts]).to be > before
    end
  end

  %w[files proxied wrapped middleware].each do |by|
    it "takes over ranges of files (#{by})" do
      size = 3_000_017
      before = seen[:bursts]
      answer = greedy.get(target(size, by), { "range" => "bytes=70000-2000000" })
      expect([answer.status, answer["content-range"]]).to eq([206, "bytes 70000-2000000/#{size}"])
      expect(answer.body).to be_payload(payload(size).byteslice(70_000..2_000_000))
      expect(seen[:bursts]).to be > before
    end
  end

  # As octal numbers they would be others, or none.
  it "takes a range as the client writes it, and ignores one that is malformed" do
    size = 3_000_017
    one = client(grant: true)
    { "bytes=010-00020" => [206, 10..20], "bytes=5-3" => [200, 0..], "bytes=a" => [200, 0..] }.each do |range, expected|
      answer = one.get(target(size), { "range" => range })
      expect([answer.status, answer.body == payload(size).byteslice(expected.last)]).to eq([expected.first, true])
    end
  end

  it "takes over several ranges" do
    size = 3_000_017
    before = seen[:bursts]
    answer = client(grant: true).get(target(size), { "range" => "bytes=5-9,100000-300000,-7" })
    expect([answer.status, answer["content-length"]]).to eq([206, answer.body.bytesize.to_s])
    parts = [5..9, 100_000..300_000, (size - 7)..(size - 1)].map { |range| payload(size).byteslice(range) }
    expect(answer.body).to match(/\A.*#{parts.map { |part| Regexp.escape(part) }.join(".*")}.*\z/mn)
    expect(seen[:bursts]).to be >= before + 7
  end

  it "answers HEAD and 304 without a body" do
    one = client
    head = one.get(target(3_000_017), method: "HEAD")
    expect([head.status, head["content-length"], head.frames]).to eq([200, "3000017", []])
    same = one.get(target(3_000_017), { "if-none-match" => head["etag"] })
    expect([same.status, same["content-length"], same.frames]).to eq([304, nil, []])
    settled
  end

  %w[trailed completed].each do |by|
    [1024, 200_000].each do |size|
      it "sends the fields behind a body of #{size} bytes (#{by})" do
        [client(grant: true), greedy].each do |one|
          answer = one.get(target(size, by))
          expect(answer.body).to be_payload(payload(size))
          expect([answer["trailer"], answer.trailers]).to eq(["server-timing", [["server-timing", by]]])
        end
        settled
      end
    end
  end

  it "sends the fields behind a body of regions as it sends the regions, and no frame besides" do
    before = seen[:bursts]
    expect(greedy.get(target(200_000, "trailed")).frames).to eq(([16_384] * 12) + [3392])
    expect(seen[:bursts]).to be > before
  end

  it "ends a response whose stream is reset before the fields behind the body" do
    one = client(window: 100, connection_window: FramesClient::LARGE_WINDOW)
    id = one.request(target(1024, "trailed"))
    one.receive { one.answers[id].body.bytesize == 100 }
    one.reset(id)
    expect(one.get(target(100, "trailed")).trailers).to eq([%w[server-timing trailed]])
    settled
  end

  it "goes on with what was asked for, when the client says that it takes no stream of the server's" do
    size = 3_000_017
    one = client
    begun = one.request(target(size))
    one.receive { one.answers[begun].body.bytesize == FramesClient::DEFAULT_WINDOW }
    waiting = one.request(target(70_000, "pieces"))
    one.say_goodbye
    one.grant(FramesClient::LARGE_WINDOW - FramesClient::DEFAULT_WINDOW)
    [[begun, size], [waiting, 70_000]].each do |id, length|
      one.grant(length, id)
      expect(one.answer(id).body).to be_payload(payload(length))
    end
    one.socket.close
    settled
  end

  it "ends the connection when the client says so and has nothing asked for" do
    one = client
    one.get(target(1024))
    one.say_goodbye
    expect(one.drain).to be(true)
  end

  it "closes a small range of Rack::Files that is cut short" do
    path = Payload.path(70_001)
    one = client(window: 100, connection_window: FramesClient::LARGE_WINDOW)
    id = one.request(target(70_001, "middleware"), { "range" => "bytes=5-20000" })
    one.receive { one.answers[id].body.bytesize == 100 }
    eventually("no descriptor but the body's own") { open_files(path) == 1 } # the call may still have a duplicate
    one.reset(id)
    eventually("no open file", within: 2) { open_files(path).zero? }
  end

  it "keeps within windows of a few bytes" do
    one = client(window: 100, connection_window: FramesClient::DEFAULT_WINDOW, grant: true)
    expect(one.get(target(10_000)).body).to be_payload(payload(10_000))
  end

  it "waits while a window is shrunk below nothing, and goes on when it grows" do
    size = 3_000_017
    one = client(window: 100_000, connection_window: FramesClient::LARGE_WINDOW)
    id = one.request(target(size))
    one.receive { one.answers[id].body.bytesize == 100_000 }
    one.initial_window = 1_000
    one.grant(98_999, id)
    one.catch_up
    expect(one.answers[id].body.bytesize).to eq(100_000)
    one.grant(2, id)
    one.receive { one.answers[id].body.bytesize == 100_001 }
    one.initial_window = FramesClient::LARGE_WINDOW - size
    expect(one.answer(id).body).to be_payload(payload(size))
  end

  it "sends many files at once, each exact" do
    sizes = [1024, 70_000, 1_000_003]
    one = greedy
    ids = Array.new(99) { |index| [one.request(target(sizes[index % 3])), sizes[index % 3]] }
    ids.each { |id, size| expect(one.answer(id).body).to be_payload(payload(size)) }
    settled
  end

  it "sends others, and answers the client, while a disk is waited for" do
    answer = File.join(Payload.dir, "cold.answer")
    Cleanup.later { FileUtils.rm_f(answer) }
    one = greedy
    cold = one.request(target(300_007))
    one.receive { one.answers[cold].status }
    3.times { expect(one.get(target(100_000)).body).to be_payload(payload(100_000)) }
    one.catch_up
    expect(one.answers[cold].body).to eq("")
    File.write(answer, "")
    expect(one.answer(cold).body).to be_payload(payload(300_007))
    settled
  end

  it "lets a small response, and the reader, between the bursts of large ones" do
    huge_file
    one = greedy
    large = Array.new(3) { one.request("/files/huge.bin") }
    one.receive { large.all? { |id| one.answers[id].frames.any? } }
    before = one.order.size
    small = one.request(target(1024))
    one.catch_up
    expect(one.answer(small).body).to be_payload(payload(1024))
    expect(large.map { |id| one.answers[id].over? }).to all(be_falsy)
    expect(one.order.drop(before).chunk_while { |one, other| one == other }.map(&:size).max).to be <= 8
    large.each { |id| expect(one.answer(id).body).to be_payload(huge_payload) }
  end
end

{ "plain" => [], "encrypted" => ["tls"] }.each do |kind, options|
  RSpec.describe "files over an HTTP/2 connection, #{kind}, that goes wrong", needs: :http2 do
    include_context "with connections by HTTP/2"
    let(:encrypted) { options.any? }
    let(:server) { ServedByHTTP2.server("http2", *options, timeout: 0.5) }

    context "with time" do
      let(:server) { ServedByHTTP2.server("http2", *options) }

      { "a file" => "files", "any body" => "pieces" }.each do |what, by|
        it "sends the next response whole though #{what} be reset in the middle of a write" do
          huge_file
          (encrypted ? 3 : 10).times do |index|
            one = greedy(receive_buffer: 16_000 + (index * 1_111)) # the write stops elsewhere each time
            first = one.request("/#{by}/huge.bin")
            one.receive { one.answers[first].frames.any? }
            blocked
            one.reset(first)
            second = one.request(target(1_000_003, by))
            expect(one.answer(second).body).to be_payload(payload(1_000_003))
            expect(one.answers[first].body).to be_payload(huge_payload.byteslice(0, one.answers[first].body.bytesize))
            one.socket.close
          end
          settled
        end
      end
    end

    it "gives a response up that gets no window, and nothing else" do
      one = client(window: 0, connection_window: FramesClient::LARGE_WINDOW)
      stuck = one.answer(one.request(target(1024)))
      expect([stuck.status, stuck.body, stuck.reset]).to eq([200, "", 2])
      one.initial_window = 1_000
      id = one.request(target(3_000_017))
      expect(one.answer(id).reset).to eq(2)
      expect(one.answers[id].body).to be_payload(payload(3_000_017).byteslice(0, 1_000))
      expect(one.get(target(1)).body).to be_payload(payload(1))
      settled
    end

    it "doesn't give a response up that gets a little window now and then" do
      one = client(window: 100, connection_window: FramesClient::LARGE_WINDOW)
      id = one.request(target(1024))
      4.times do |index|
        one.receive { one.answers[id].body.bytesize == 100 * (index + 1) }
        sleep 0.3 # more than the timeout in all
        one.grant(100, id)
      end
      one.grant(10_000, id)
      expect(one.answer(id).body).to be_payload(payload(1024))
    end

    it "ends a connection whose client reads nothing" do
      path = huge_file
      one = greedy(receive_buffer: 16 * 1024)
      one.request("/files/huge.bin")
      one.request("/rack/huge.bin")
      eventually("open files") { open_files(path) == 2 }
      eventually("no open file") { open_files(path).zero? }
      one.drain
      settled
    end

    it "leaves nothing open for a client that is gone, wherever that was" do
      path = huge_file
      tasks = seen[:tasks]
      %w[files rack pieces].each do |by|
        [-> { client(window: 0) }, -> { client(window: 1_000) }, -> { client }, -> { greedy },
         -> { greedy(receive_buffer: 16 * 1024) }].each do |connect|
          one = connect.call
          ids = Array.new(5) { one.request("/#{by}/huge.bin") }
          one.receive { one.answers[ids.first].headers }
          one.socket.close
        end
      end
      eventually("no open file") { open_files(path).zero? }
      settled(tasks: tasks)
    end

    it "resets the stream of a file that was truncated, and gives its window back" do
      one = client(window: 10_000, connection_window: FramesClient::DEFAULT_WINDOW)
      10.times do
        file = private_payload_file(50_000)
        id = one.request("/files/#{File.basename(file.path)}")
        one.receive { one.answers[id].body.bytesize == 10_000 }
        file.truncate(12_000)
        one.grant(20_000, id)
        expect(one.answer(id).reset).to eq(2)
        one.grant(one.answers[id].body.bytesize)
        expect(one.answers[id].body).to be_payload(payload(50_000).byteslice(0, 10_000))
      end
      expect(client.get(target(1024)).body).to be_payload(payload(1024))
      expect(one.tap { one.initial_window = 65_535 }.get(target(65_535)).body).to be_payload(payload(65_535))
      settled
    end

    it "closes what it was to send to a stream that has been reset" do
      path = huge_file
      one = client(window: 0)
      ids = Array.new(5) { one.request("/files/huge.bin") }
      one.receive { ids.all? { |id| one.answers[id].headers } }
      ids.each { |id| one.reset(id) }
      eventually("no open file") { open_files(path).zero? }
      settled
    end
  end
end
