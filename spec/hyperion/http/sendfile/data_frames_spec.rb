# frozen_string_literal: true

# A region as DATA frames: the bytes on the wire, over every source, destination and way of waiting.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, ".copy_data_frames" do
  large = 1_000_003
  frame_sizes = [16_384, 16_385, 65_536, 131_072, 262_144, (1 << 24) - 1].freeze
  sources = %i[file string].freeze
  ways = (Channels::ALL + Channels::MEMORY).uniq.product(Waiters::ALL & %i[thread fiber_minimal], [:file])
  ways += %i[tcp tls13].product(Waiters::ALL - %i[blocking blocking_in_fiber], sources)
  head = Http2Frames.headers(77, stream_id: 5)

  define_method(:source_of) do |source, size|
    source == :file ? payload_file(size) : payload(size)
  end

  define_method(:expected) do |*region, **options|
    Http2Frames.expected(payload(region.shift).byteslice(*region), stream_id: 5, **options)
  end

  define_method(:start_frames) do |waiter, out, source, *region, **options, &progress|
    start_under(waiter) { S.copy_data_frames(out, source, *region, stream_id: 5, **options, &progress) }
  end

  # Sends to a reader that takes everything at once; returns what arrived and what the call said.
  define_method(:deliver) do |kind, source, *region, waiter: :thread, small: false, **options, &progress|
    channel = channel(kind, small: small)
    reader = channel.read
    said = start_frames(waiter, channel.out, source, *region, **options, &progress).value
    channel.finish
    [channel.decode(reader.result), said]
  end

  sources.each do |source|
    describe "from a #{source}" do
      [0, 1, 16_383, 16_384, 16_385, 32_768, 262_143, 262_144, large].product([0, 1, 255]).each do |size, padding|
        it "frames #{size} bytes#{", padded by #{padding}" if padding.positive?}" do
          totals = []
          received, said = deliver(:tcp, source_of(source, size), 0, size, padding: padding) { |sent| totals << sent }
          expect(received).to be_payload(expected(size, 0, size, padding: padding))
          expect(said).to eq(size)
          expect(totals).to eq(totals.uniq.sort)
          expect(totals.last.to_i).to eq(size)
        end
      end

      frame_sizes.product([0, 9]).each do |max, padding|
        it "frames by #{max} bytes#{", padded by #{padding}" if padding.positive?}" do
          [large, [max * 2, 700_001].min].each do |len|
            received, = deliver(:tcp, source_of(source, large), large - len, len, max_frame_size: max, padding: padding,
                                                                                  head: head)
            expect(received).to be_payload(head + expected(large, large - len, len, max_frame_size: max,
                                                                                    padding: padding))
          end
        end
      end

      it "tells of the boundary behind each large frame, padded or not" do
        max = 65_536
        [0, 255].each do |padding|
          room = padding.zero? ? max : max - 1 - padding
          totals = []
          deliver(:tcp, source_of(source, large), 0, large, max_frame_size: max, padding: padding) do |sent|
            totals << sent
          end
          expect(totals.map { |sent| sent % room }[0..-2].uniq).to eq([0])
          expect(totals.each_cons(2).map { |before, after| after - before }.max).to be <= 262_144
        end
      end

      it "writes frames that a parser reads" do
        received, = deliver(:tcp, source_of(source, large), 3, 100_000, padding: 3)
        frames, rest = Http2Frames.parse(received)
        expect(rest).to be_empty
        expect(frames.map(&:data).join).to be_payload(payload(large).byteslice(3, 100_000))
        expect(frames[0..-2].map(&:octets).uniq).to eq([16_384])
        expect(frames.map { |frame| [frame.type, frame.stream_id, frame.padded?] }.uniq).to eq([[0, 5, true]])
        expect(frames.map(&:end_stream?)).to eq(([false] * (frames.size - 1)) << true)
        expect(frames.sum(&:octets)).to eq(S.data_frames_window(100_000, padding: 3))
      end

      it "leaves the stream open where that is asked for" do
        [0, 16_384, 40_000].each do |len|
          [nil, head].each do |start|
            received, said = deliver(:tcp, source_of(source, large), 7, len, end_stream: false, head: start)
            expect(received).to be_payload(start.to_s.b + expected(large, 7, len, end_stream: false))
            expect(said).to eq(len)
          end
        end
      end
    end
  end

  ways.uniq.each do |kind, waiter, source|
    context "with a #{source} to #{kind}, waiting by #{waiter}" do
      it "delivers every frame" do
        [[5, 16_384], [0, large]].product([16_384, 262_144], [0, 7]).each do |(offset, len), max, padding|
          len -= offset
          options = { max_frame_size: max, padding: padding }
          received, said = deliver(kind, source_of(source, large), offset, len, waiter: waiter, head: head, **options)
          expect(received).to be_payload(head + expected(large, offset, len, **options))
          expect(said).to eq(len)
        end
      end

      it "goes on through small buffers" do
        [16_384, 131_072].each do |max|
          totals = []
          size = 300_007
          options = { waiter: waiter, small: true, max_frame_size: max }
          received, = deliver(kind, source_of(source, size), 1, size - 1, **options) { |sent| totals << sent }
          expect(received).to be_payload(expected(size, 1, size - 1, max_frame_size: max))
          expect(totals.last).to eq(size - 1)
          expect(totals.size).to be > 1
          expect(totals[0..-2].map { |sent| sent % max }.uniq - [0]).to be_empty
        end
      end

      next if Channels::MEMORY.include?(kind)

      it "goes on where a full socket stopped it", needs: (:openssl if Channels::TLS.include?(kind)) do
        [16_384, 262_144].each do |max|
          size = 300_007
          channel = channel(kind, small: true)
          reader = channel.read(:stalled)
          sender = start_frames(waiter, channel.out, source_of(source, size), 0, size, max_frame_size: max, head: head)
          await_backpressure(channel, sender)
          reader.go(:slow)
          expect(sender.value).to eq(size)
          channel.finish
          expect(channel.decode(reader.result)).to be_payload(head + expected(size, 0, size, max_frame_size: max))
        end
      end
    end
  end

  describe "arguments" do
    bad = {
      "a stream of 0" => [{ stream_id: 0 }, ArgumentError],
      "a negative stream" => [{ stream_id: -1 }, ArgumentError],
      "a stream over 2^31-1" => [{ stream_id: 1 << 31 }, ArgumentError],
      "a stream that is no Integer" => [{ stream_id: "1" }, ArgumentError],
      "frames under 16,384" => [{ max_frame_size: 16_383 }, ArgumentError],
      "frames over 2^24-1" => [{ max_frame_size: 1 << 24 }, ArgumentError],
      "frames of no Integer" => [{ max_frame_size: nil }, ArgumentError],
      "padding over 255" => [{ padding: 256 }, ArgumentError],
      "negative padding" => [{ padding: -1 }, ArgumentError],
      "padding that is no Integer" => [{ padding: 1.5 }, ArgumentError],
      "a head that is no String" => [{ head: 1 }, TypeError],
      "a negative timeout" => [{ timeout: -1 }, ArgumentError],
      "a timeout that is no number" => [{ timeout: "30" }, ArgumentError],
      "an end of stream that is neither true nor false" => [{ end_stream: :no }, ArgumentError]
    }
    bad.each do |name, (options, error)|
      it "raises for #{name}, and writes nothing" do
        channel = channel(:tcp)
        reader = channel.read
        expect { S.copy_data_frames(channel.out, payload(100), 0, 100, stream_id: 1, head: "h", **options) }
          .to raise_error(error, /#{options.keys.first}/)
        channel.finish
        expect(reader.result).to eq("")
      end
    end

    regions = { [-1, 10] => ArgumentError, [0, -1] => ArgumentError, [0, nil] => TypeError, ["0", 1] => TypeError,
                [1 << 62, 1 << 62] => RangeError, [0, (1 << 63) - 1] => RangeError }
    regions.to_a.product(sources).each do |(region, error), source|
      it "raises for #{region.inspect} of a #{source}, and writes nothing" do
        out = StringIO.new(+"")
        error = S::TruncatedError if source == :string && error == RangeError && region.first.zero?
        source = source_of(source, 100)
        expect { S.copy_data_frames(out, source, *region, stream_id: 1, head: "h") }.to raise_error(error)
        expect(out.string).to eq("")
      end
    end

    [nil, :symbol, StringIO.new("text"), Object.new].each do |source|
      it "raises for a source that is #{source.class}" do
        expect { S.copy_data_frames(StringIO.new, source, 0, 1, stream_id: 1) }.to raise_error(TypeError)
      end
    end

    it "raises for a pipe" do
      pipe = IO.pipe.each { |io| Cleanup.close(io) }.first
      [StringIO.new, channel(:tcp).out].each do |out|
        expect { S.copy_data_frames(out, pipe, 0, 1, stream_id: 1, head: "h") }.to raise_error(TypeError)
      end
    end

    it "raises for a closed file or destination" do
      file = payload_file(100).tap(&:close)
      expect { S.copy_data_frames(StringIO.new, file, 0, 1, stream_id: 1) }.to raise_error(IOError)
      out = channel(:tcp).out.tap(&:close)
      expect { S.copy_data_frames(out, "a", 0, 1, stream_id: 1) }.to raise_error(IOError)
    end
  end

  if S.const_get(:Native)::Frames.buffers?
    describe "from an IO::Buffer" do
      around do |example|
        before = Warning[:experimental]
        Warning[:experimental] = false
        example.run
      ensure
        Warning[:experimental] = before
      end

      def buffer_of(bytes)
        buffer = IO::Buffer.new(bytes.bytesize)
        RUBY_VERSION < "3.2" ? buffer.copy(lent = IO::Buffer.for(bytes.dup), 0) : buffer.set_string(bytes)
        lent&.free # Ruby 3.1 crashes where it collects such a buffer together with its String
        buffer
      end

      Channels::ALL.product(Waiters::ALL & %i[thread fiber_minimal]).each do |kind, waiter|
        it "delivers every frame to #{kind}, waiting by #{waiter}" do
          [16_384, 262_144].each do |max|
            received, said = deliver(kind, buffer_of(payload(large)), 3, large - 3, waiter: waiter, max_frame_size: max)
            expect(received).to be_payload(expected(large, 3, large - 3, max_frame_size: max))
            expect(said).to eq(large - 3)
          end
        end
      end

      it "keeps it from being freed meanwhile, for several at once" do
        buffer = buffer_of(payload(large))
        sendings = Array.new(2) do
          channel = channel(:tcp, small: true)
          reader = channel.read(:stalled)
          sender = start_frames(:thread, channel.out, buffer, 0, large)
          await_backpressure(channel, sender)
          [channel, reader, sender]
        end
        sendings.each do |channel, reader, sender|
          expect { buffer.free }.to raise_error(IO::Buffer::LockedError)
          reader.go(:greedy)
          expect(sender.value).to eq(large)
          channel.finish
          expect(reader.result).to be_payload(expected(large, 0, large))
        end
        expect(buffer).not_to be_locked
        buffer.free
      end

      it "lets go of it where nothing is sent, or the call fails" do
        buffer = buffer_of("text")
        S.copy_data_frames(StringIO.new, buffer, 0, 0, stream_id: 1, end_stream: false)
        out = channel(:tcp).tap { |channel| channel.peer.close }.out
        expect { loop { S.copy_data_frames(out, buffer, 0, 4, stream_id: 1) } }.to raise_error(SystemCallError)
        expect { S.copy_data_frames(StringIO.new, buffer, 1, 4, stream_id: 1) }.to raise_error(S::TruncatedError)
        expect(buffer).not_to be_locked
      end

      it "takes one that is frozen, for several at once, and lets go of it" do
        buffer = buffer_of("text").freeze
        outer = StringIO.new
        S.copy_data_frames(outer, buffer, 0, 4, stream_id: 1) do
          inner = StringIO.new
          S.copy_data_frames(inner, buffer, 0, 4, stream_id: 1)
          expect(inner.string).to end_with("text")
          expect(buffer).to be_locked
        end
        expect(outer.string).to end_with("text")
        expect(buffer).not_to be_locked
      end

      # Their cursors and the buffers become garbage together, and are not swept in any order.
      def give_up_many(out, peer)
        Array.new(300) do
          buffer = buffer_of("x" * 100)
          fiber = Fiber.new(blocking: true) do
            S.copy_data_frames(out, buffer, 0, 100, stream_id: 1) { Fiber.yield }
          end
          fiber.resume
          peer.read_nonblock(65_536)
          [buffer, fiber]
        end
        nil
      end

      it "locks each, after others were given up midway" do
        out, peer = UNIXSocket.pair.each { |socket| Cleanup.close(socket) }
        locked = Array.new(10) do
          give_up_many(out, peer)
          GC.start(full_mark: true, immediate_sweep: false)
          Array.new(300) do
            buffer = buffer_of("y" * 100)
            locked = nil
            S.copy_data_frames(out, buffer, 0, 100, stream_id: 1) { locked = buffer.locked? }
            peer.read_nonblock(65_536)
            locked
          end
        end
        expect(locked.flatten).to all(be(true))
      end

      it "lets go of one that was given up midway" do
        out, peer = UNIXSocket.pair.each { |socket| Cleanup.close(socket) }
        buffer = buffer_of("x" * 100)
        # In a thread of its own, so that no stack has anything of the fiber left.
        Thread.new do
          Fiber.new(blocking: true) { S.copy_data_frames(out, buffer, 0, 100, stream_id: 1) { Fiber.yield } }.resume
        end.join
        other = buffer_of("y")
        eventually("the buffer is unlocked") do
          GC.start
          S.copy_data_frames(StringIO.new, other, 0, 1, stream_id: 1)
          !buffer.locked?
        end
        expect(peer.readpartial(65_536)).not_to be_empty
      end

      it "sends a copy of what is part of another, which may be freed meanwhile" do
        whole = buffer_of(payload(large))
        part = whole.slice(3, large - 3)
        channel = channel(:tcp, small: true)
        reader = channel.read(:stalled)
        sender = start_frames(:thread, channel.out, part, 4, large - 7)
        await_backpressure(channel, sender)
        whole.free
        reader.go(:greedy)
        expect(sender.value).to eq(large - 7)
        channel.finish
        expect(reader.result).to be_payload(expected(large, 7, large - 7))
      end

      it "does not take one that somebody else has locked" do
        buffer = buffer_of("text")
        buffer.locked do
          out = StringIO.new
          expect { S.copy_data_frames(out, buffer, 0, 4, stream_id: 1) }.to raise_error(IO::Buffer::LockedError)
          expect(out.string).to eq("")
        end
        S.copy_data_frames(StringIO.new, buffer, 0, 4, stream_id: 1)
      end
    end
  end

  describe ".data_frames_window" do
    it "is what the frames on the wire say" do
      [0, 1, 16_127, 16_128, 16_129, 50_000].product([0, 1, 255], [true, false]).each do |len, padding, end_stream|
        wire = Http2Frames.expected("x" * len, stream_id: 1, padding: padding, end_stream: end_stream)
        window = S.data_frames_window(len, padding: padding, end_stream: end_stream)
        expect(window).to eq(Http2Frames.parse(wire).first.sum(&:octets))
      end
    end

    it "raises for bad arguments" do
      expect { S.data_frames_window(-1) }.to raise_error(ArgumentError)
      expect { S.data_frames_window("1") }.to raise_error(TypeError)
      expect { S.data_frames_window(1, max_frame_size: 1) }.to raise_error(ArgumentError)
      expect { S.data_frames_window(1, padding: 256) }.to raise_error(ArgumentError)
    end
  end
end
