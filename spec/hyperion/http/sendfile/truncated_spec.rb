# frozen_string_literal: true

# A file that ends before the region does: the call says so at once, with the counts, and holds nothing back.

require "spec_helper"
require_relative "every_route"

RSpec.describe Hyperion::Http::Sendfile::TruncatedError do
  include EveryRoute

  let(:head) { "HTTP/1.1 200 OK\r\nx-name: h\u00e9\r\n\r\n" }

  def truncate(source, size)
    source.is_a?(StringIO) ? source.truncate(size) : File.truncate(source.path, size)
  end

  # A source that the example may shorten while others read it.
  def private_source(route)
    route.from_memory ? StringIO.new(+payload(route.bytes)) : private_payload_file(route.bytes)
  end

  # The whole of what was received, and the error's count of it.
  def expect_truncated(sending, expected, content, sent: nil, head: "")
    received = sending.received
    expect(sending.error).to be_a(described_class), "#{sending}: #{sending.error.inspect}"
    sent ||= received.bytesize - head.bytesize
    expect(sending.error).to be_an(EOFError).and have_attributes(bytes_sent: sent,
                                                                 bytes_expected: expected)
    return if received.empty? && sending.error.bytes_sent.zero? # a head may wait for its region

    expect(received).to be_payload(head.b + content.byteslice(0, sending.error.bytes_sent))
  end

  EveryRoute::ALL.each do |route|
    context "with #{route}" do
      it "tells of a file that is shorter than len from the start" do
        content = payload(route.bytes)
        length = route.bytes + 777
        ["", head].product(Waiters::ALL) do |head, waiter|
          sending = start_sending(route, waiter, source_for(route), 0, length, mode: :greedy, small: false,
                                                                               observe: true, head: head)
          expect_truncated(sending, length, content, sent: content.bytesize, head: head)
          expect(sending.seconds).to be < Eventually::LATE
          expect(sending.totals.last).to eq(content.bytesize)
        end
      end

      next if route.kind == :wrapper # its write tells no one how far it has come

      it "tells of a file whose end is before the offset" do
        Waiters::ALL.each do |waiter|
          sending = start_sending(route, waiter, payload_file(500), 505, route.bytes, mode: :greedy, head: head)
          expect_truncated(sending, route.bytes, "", sent: 0, head: head)
        end
      end

      # In userspace a small region is read as a whole before any of it is written.
      midway = { needs: (:extension if route.bytes <= S::USERSPACE_CHUNK) }

      it "tells of a file truncated to nothing midway, at once and without burning CPU", **midway do
        sendings = stall_all(route, 0, route.bytes, head: head) { private_source(route) }
        sendings.each { |sending| truncate(sending.source, 0) }
        expect(cpu_seconds { sleep 0.15 }).to be < 0.08
        used = cpu_seconds do
          sendings.each do |sending|
            sending.reader.go(:greedy)
            expect(seconds { sending.failure }).to be < Eventually::LATE
          end
        end
        expect(used).to be < 1
        sendings.each { |sending| expect_truncated(sending, route.bytes, payload(route.bytes), head: head) }
      end

      truncated_to = route.bytes - 10_000
      it "sends what is left of a file truncated midway, and tells", **midway do
        sendings = stall_all(route, 0, route.bytes) { private_source(route) }
        sendings.each do |sending|
          truncate(sending.source, truncated_to)
          sending.reader.go(:greedy)
          expect_truncated(sending, route.bytes, payload(route.bytes), sent: truncated_to)
        end
      end
    end
  end

  (Channels::MEMORY + %i[wrapper]).product(Waiters::ALL) do |kind, waiter|
    context "with #{kind}, waiting by #{waiter}" do
      define_method(:send_from) do |file, *region, **options, &progress|
        channel = channel(kind)
        reader = channel.read
        error = start_copy(waiter, channel.out, file, *region, **options, &progress).error
        channel.finish
        [error, channel.decode(reader.result)]
      end

      it "tells of a file that is shorter than len from the start" do
        error, received = send_from(payload_file(1_500), 500, 8_192, head: head)
        expect(error).to be_a(described_class).and have_attributes(bytes_sent: 1_000, bytes_expected: 8_192)
        expect(received).to be_payload(head.b + payload(1_500).byteslice(500..))
      end

      it "tells of a file truncated midway" do
        file = private_payload_file(1_000_003)
        error, received = send_from(file, 0, 1_000_003) { |sent| truncate(file, 700_001) if sent < 700_001 }
        expect(error).to be_a(described_class).and have_attributes(bytes_sent: 700_001, bytes_expected: 1_000_003)
        expect(received).to be_payload(payload(1_000_003).byteslice(0, 700_001))
      end
    end
  end

  # Held back by MSG_MORE, the last segment would wait 200 ms for more. The connection stays open meanwhile.
  describe "the last bytes before the end of the file" do
    def arrival(waiter, route, file, len, head)
      sending = start_sending(route, waiter, file, 0, len, mode: :greedy, small: false, head: head)
      all = head.to_s.bytesize + file.size
      begun = Eventually.now
      sending.reader.wait_for_bytes(all)
      time = Eventually.now - begun
      expect(sending.error).to be_a(described_class).and have_attributes(bytes_sent: file.size, bytes_expected: len)
      time
    end

    held = EveryRoute::ALL.select { |route| route.kind == :tcp && !route.from_memory }
    lengths = { 0 => 1, 1_000 => 2_000, 5_000 => 8_000, 20_001 => 60_000, 100_003 => 1_000_000 }
    held.product(Waiters::ALL) do |route, waiter|
      it "are not held back with #{route}, waiting by #{waiter}" do
        lengths.each do |size, len|
          [head, nil].each do |head|
            next if size.zero? && (head.nil? || !route.nonblock) # nothing is sent, and so nothing held

            # A held segment is late every time; a busy machine is not.
            times = []
            3.times { times << arrival(waiter, route, payload_file(size), len, head) unless times.any? { |t| t < 0.1 } }
            expect(times.min).to be < 0.1, "#{size} of #{len} bytes, #{head ? "with" : "without"} head: #{times}"
          end
        end
      end
    end
  end
end
