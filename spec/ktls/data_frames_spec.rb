# frozen_string_literal: true

# DATA frames that the kernel encrypts: by each route and way of waiting, and what an early end leaves.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, ".copy_data_frames over kernel TLS" do
  size = 1_000_003
  head = Http2Frames.headers(77, stream_id: 5)

  define_method(:start_frames) do |waiter, out, source, len, **options, &progress|
    start_under(waiter) { S.copy_data_frames(out, source, 0, len, stream_id: 5, **options, &progress) }
  end

  define_method(:expected) do |max, padding = 0|
    Http2Frames.expected(payload(size), stream_id: 5, max_frame_size: max, padding: padding)
  end

  %i[ktls12 ktls13].product(%i[thread fiber_async fiber_minimal], [16_384, 262_144]).each do |kind, waiter, max|
    context "with frames of #{max} to #{kind}, waiting by #{waiter}" do
      it "delivers every frame of a file and of a String" do
        [payload_file(size), payload(size)].product([0, 7]).each do |source, padding|
          channel = channel(kind)
          reader = channel.read
          options = { max_frame_size: max, padding: padding, head: head }
          expect(start_frames(waiter, channel.out, source, size, **options).value).to eq(size)
          channel.finish
          expect(reader.result).to be_payload(head + expected(max, padding))
        end
        expect(S.fast_path_kind(channel(kind).out)).to eq(:ktls)
      end

      it "goes on where a full socket stopped it" do
        channel = channel(kind, small: true)
        reader = channel.read(:stalled)
        sender = start_frames(waiter, channel.out, payload_file(size), size, max_frame_size: max)
        await_backpressure(channel, sender)
        reader.go
        expect(sender.value).to eq(size)
        channel.finish
        expect(reader.result).to be_payload(expected(max))
      end

      it "leaves the connection usable after a break, and after a file that ends in a frame" do
        channel = channel(kind)
        reader = channel.read
        start_under(waiter) do
          S.copy_data_frames(channel.out, payload_file(size), 0, size, stream_id: 3, max_frame_size: max) { break }
        end.value
        error = start_frames(waiter, channel.out, payload_file(size), 2 * size, max_frame_size: max).error
        expect(error).to be_a(S::TruncatedError).and have_attributes(torn?: false, bytes_sent: size / max * max)
        S.copy_data_frames(channel.out, "after", 0, 5, stream_id: 7)
        channel.finish
        frames, rest = Http2Frames.parse(reader.result)
        expect(rest).to eq("")
        expect(frames.last.to_a).to eq([5, 0, 1, 7, "after"])
        sent = frames.select { |frame| frame.stream_id == 5 }.map(&:data).join
        expect(sent).to be_payload(payload(size).byteslice(0, error.bytes_sent))
      end
    end
  end
end
