# frozen_string_literal: true

# The ways in which a transfer over kernel TLS ends early, with the counts.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "ended early over kernel TLS" do
  head = "HTTP/1.1 200 OK\r\nx-name: value\r\n\r\n"
  large = 1_000_003

  # A transfer asleep on a full connection.
  def stalled(kind, waiter, source, *region, **options)
    channel = channel(kind, small: true)
    reader = channel.read(:stalled)
    sender = start_copy(waiter, channel.out, source, *region, **options)
    await_backpressure(channel, sender)
    [channel, reader, sender]
  end

  { false => Waiters::ALL, true => %i[thread fiber_async] }.each do |splice, waiters|
    KernelTls::KINDS.keys.product(waiters).each do |kind, waiter|
      context "with #{"splice to " if splice}#{kind}, waiting by #{waiter}" do
        around do |example|
          ENV["HYPERION_HTTP_SPLICE"] = splice ? "1" : nil
          example.run
        ensure
          ENV.delete("HYPERION_HTTP_SPLICE")
        end

        it "tells of a file that is shorter than len, and holds nothing of it back" do
          { 0 => 5, 1_000 => 2_000, 20_001 => 60_000, 100_003 => 1_000_000 }.each do |size, length|
            channel = channel(kind)
            reader = channel.read
            error = start_copy(waiter, channel.out, payload_file(size), 0, length, head: head).error
            expect(error).to be_a(described_class::TruncatedError)
              .and have_attributes(bytes_sent: size, bytes_expected: length)
            reader.wait_for_bytes(size.zero? ? 0 : head.bytesize + size)
            channel.finish
            expect(head.b + payload(size)).to start_with(reader.result)
          end
        end

        it "holds nothing back of a file that has less than its size" do
          path = "/sys/kernel/mm/transparent_hugepage/enabled"
          path = "/sys/kernel/notes" unless File.file?(path)
          content = File.binread(path)
          [[0, content], [content.bytesize + 1, ""]].each do |offset, expected|
            channel = channel(kind)
            reader = channel.read
            file = Cleanup.close(File.new(path, "rb"))
            expect(copy_under(waiter, channel.out, file, offset, head: head)).to eq(expected.bytesize)
            reader.wait_for_bytes(head.bytesize + expected.bytesize) # while the connection is open
            channel.finish
            expect(reader.result).to eq(head.b + expected)
          end
        end

        it "tells of a file truncated midway" do
          file = private_payload_file(large)
          channel, reader, sender = stalled(kind, waiter, file, 0, large, head: head)
          File.truncate(file.path, large - 10_000)
          reader.go
          expect(sender.error).to be_a(described_class::TruncatedError)
            .and have_attributes(bytes_sent: large - 10_000, bytes_expected: large)
          channel.finish
          expect(reader.result).to be_payload(head.b + payload(large).byteslice(0, large - 10_000))
        end

        it "tells of a reader that stalls" do
          channel = channel(kind, small: true)
          reader = channel.read(:stalled)
          error = start_copy(waiter, channel.out, payload_file(large), head: head, timeout: 0.3).error
          expect(error).to be_a(described_class::TimeoutError).and have_attributes(bytes_expected: large)
          expect(error.bytes_sent).to be_between(1, large - 1)
          reader.go
          channel.finish
          received = reader.result
          expect(head.b + payload(large)).to start_with(received)
          expect(received.bytesize).to be <= head.bytesize + error.bytes_sent
        end

        it "tells of a reset midway" do
          _, reader, sender = stalled(kind, waiter, payload_file(large), head: head)
          reader.reset
          expect([Errno::EPIPE, Errno::ECONNRESET]).to include(sender.error.class)
        end

        next if waiter == :fiber_minimal # it selects on a closed IO

        it "hears at once of a close by another thread" do
          channel, _, sender = stalled(kind, waiter, payload_file(large))
          took = seconds do
            channel.wire.close
            expect(sender.error).to be_an(IOError)
          end
          expect(took).to be < Eventually::LATE
        end

        next unless waiter == :thread

        it "ends with its thread" do
          _, reader, sender = stalled(kind, waiter, payload_file(large), head: head)
          sender.thread.kill
          expect(sender.thread.join(10)).not_to be_nil
          reader.go
        end
      end
    end
  end
end
