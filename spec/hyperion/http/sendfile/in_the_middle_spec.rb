# frozen_string_literal: true

# What other code does in the middle of a call: a head that changes, a to_io that closes things, a peer that goes
# while bytes still move.

require "spec_helper"
require "open3"
require "rbconfig"

RSpec.describe Hyperion::Http::Sendfile, "in the middle of a call" do
  size = 3_000_001

  describe "a head that its owner changes" do
    { "grows" => ->(head) { head << "INJECTED" }, "is cleared" => :clear.to_proc }.each do |what, change|
      %i[thread fiber_minimal].each do |waiter|
        it "goes out as it was given, where it #{what} (#{waiter})" do
          channel = channel(:unix)
          reader = channel.read
          head = "HTTP/1.1 200 OK\r\n\r\n" * 3
          given = head.dup
          copy_under(waiter, channel.out, payload_file(size), 0, size, head: head, timeout: 5) { change.call(head) }
          channel.finish
          expect(reader.result).to be_payload(given.b + payload(size))
        end
      end
    end
  end

  # Other threads run while a first attempt is made, which the full socket takes a part of.
  describe "a head that another thread changes", needs: :extension do
    def change_meanwhile(head, receiver, name)
      taken = Thread::Queue.new
      allow(receiver).to receive(name).and_wrap_original do |attempt, *arguments, &block|
        attempt.call(*arguments, &block).tap do |moved|
          head.replace("another, of another length")
          taken << moved
        end
      end
      taken
    end

    def result_of(channel, taken, &sending)
      sender = start_under(:thread, &sending)
      expect(Array(taken.pop).first).to be_between(1, 59_999)
      reader = channel.read
      expect(sender.value).to eq(60_000)
      channel.finish
      reader.result
    end

    [0, 60, 3_000].each do |length|
      it "goes out as it was given, and the region whole (#{length} bytes)" do
        channel = channel(:tcp, small: true)
        head = "h" * length
        taken = change_meanwhile(head, S, :copy_small)
        received = result_of(channel, taken) do
          S.copy_to_socket(channel.out, payload_file(60_000), 0, 60_000, head: head)
        end
        expect(received).to be_payload(("h" * length) + payload(60_000))
      end
    end

    # An interrupt may let another thread run before copy_small reads the head.
    it "goes out with the region once, where it changes before the attempt" do
      out, peer = UNIXSocket.pair.each { |socket| Cleanup.close(socket) }
      %w[shorter another_that_is_longer].each do |other|
        head = +"given_as_this"
        allow(S).to receive(:copy_small).and_wrap_original do |attempt, *arguments, &block|
          head.replace(other)
          attempt.call(*arguments, &block)
        end
        S.copy_to_socket(out, payload_file(100), 0, 100, head: head)
        expect(peer.readpartial(10_000)).to be_payload("given_as_this".b + payload(100))
      end
    end

    it "goes out as it was given, and the frames whole" do
      channel = channel(:tcp, small: true)
      head = "h" * 60
      taken = change_meanwhile(head, S.const_get(:Native), :frames_at_once)
      received = result_of(channel, taken) do
        S.copy_data_frames(channel.out, payload_file(60_000), 0, 60_000, stream_id: 1, head: head)
      end
      lengths = [16_384, 16_384, 16_384, 10_848]
      frames = lengths.each_with_index.map do |bytes, index|
        [0, bytes, 0, index == 3 ? 1 : 0, 1].pack("CnCCN") + payload(60_000).byteslice(index * 16_384, bytes)
      end
      expect(received).to be_payload(("h" * 60) + frames.join)
    end

    it "goes out as the bytes that it has, whatever its class says of them" do
      head = Class.new(String) do
        def bytesize
          3
        end
      end.new("HTTP/1.1 200 OK\r\n\r\n")
      channel = channel(:stringio)
      [head, head.dup.freeze].each { |given| S.copy_to_socket(channel.out, payload_file(1_500), head: given) }
      expect(channel.out.string).to be_payload(("HTTP/1.1 200 OK\r\n\r\n".b + payload(1_500)) * 2)
    end
  end

  describe "a source whose to_io runs code" do
    # The number of the destination is somebody else's by the time that the source is known.
    it "gets nothing to whoever has the destination's number now" do
      out = channel(:unix).out
      number = out.fileno
      other = nil
      file = payload_file(12)
      source = Object.new
      source.define_singleton_method(:to_io) do
        out.close
        other ||= UNIXSocket.pair.each { |socket| Cleanup.close(socket) }
        file
      end
      %i[copy copy_small copy_splice].each do |name|
        expect { S.public_send(name, out, source, 0, 12) }.to raise_error(IOError, /out/)
      end
      expect(other.map(&:fileno)).to include(number)
      expect(other.map { |socket| socket.read_nonblock(100, exception: false) }).to all(eq(:wait_readable))
    end
  end

  describe "a signal handler that closes the source", needs: :extension do
    # Signals come at every moment, that between looking the source up and leaving the GVL among them.
    script = <<~RUBY
      require "hyperion/http/sendfile"
      require "socket"
      length = Integer(ARGV.shift)
      File.write(ARGV[0], "s" * length)
      File.write(ARGV[1], "o" * length)
      file = other = nil
      trap("USR1") do
        unless other
          file&.close
          other = File.open(ARGV[1])
        end
      end
      parent = Process.pid
      sender = fork do
        loop do
          Process.kill(:USR1, parent)
          sleep 0.0001
        end
      end
      out, peer = UNIXSocket.pair
      stop = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 1
      received = "".b
      while Process.clock_gettime(Process::CLOCK_MONOTONIC) < stop
        file = File.open(ARGV[0])
        other&.close
        other = nil
        begin
          Hyperion::Http::Sendfile.copy_to_socket(out, file, 0, length)
        rescue IOError
          nil # it was closed before
        end
        received << peer.read_nonblock(length, exception: false).to_s[0]
        file.close
      end
      Process.kill(:KILL, sender)
      puts [received.count("s").positive?, received.count("o")].inspect
    RUBY

    [8_192, 100_000].each do |length|
      it "sends nothing of the file that has its number now (#{length} bytes)" do
        ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
        files = Array.new(2) { private_payload_file(1).path }
        output, status = Open3.capture2e(*ruby, "-e", script, length.to_s, *files)
        expect([output.chomp, status.success?]).to eq(["[true, 0]", true])
      end
    end
  end

  describe "SIGPIPE after bytes were moved" do
    script = <<~RUBY
      require "hyperion/http/sendfile"
      require "socket"
      hits = 0
      trap("PIPE", ENV["DISPOSITION"] == "trap" ? proc { hits += 1 } : "SYSTEM_DEFAULT")
      server = TCPServer.new("127.0.0.1", 0)
      moved = 0
      10.times do
        client = TCPSocket.new("127.0.0.1", server.addr[1])
        socket = server.accept
        socket.setsockopt(:SOCKET, :SNDBUF, 4 << 20)
        client.close
        bytes, = Hyperion::Http::Sendfile.copy(socket, File.open(ARGV[0]), 0, 4 << 20)
        moved += 1 if bytes.positive?
      rescue SystemCallError
        nil
      end
      puts [moved.positive?, hits].inspect
    RUBY

    %w[trap default].each do |disposition|
      it "is not delivered, with #{disposition}" do
        ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
        output, status = Open3.capture2e({ "DISPOSITION" => disposition }, *ruby, "-e", script,
                                         payload_file(4 << 20).path)
        expect([output.chomp, status.success?]).to eq(["[true, 0]", true])
      end
    end
  end
end
