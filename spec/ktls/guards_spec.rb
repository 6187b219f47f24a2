# frozen_string_literal: true

# What the TLS layer of the kernel would do to its user: keep bytes for a peer that is gone, drop the last records at
# a close, keep a head for ever.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "guarded against kernel TLS" do
  gone = [Errno::EPIPE, Errno::ECONNRESET]
  too_much = 2 << 30 # more than the guest has memory
  head = "HTTP/1.1 200 OK\r\nx-name: value\r\n\r\n"
  endless = Class.new { def read(length, buffer) = buffer.replace("\0" * length) }

  # Gone, with nothing left that says so but the state of the connection.
  def reset_and_consume(channel, reader)
    reader.reset
    eventually("the pending error") { channel.wire.getsockopt(:SOCKET, :ERROR).int != 0 }
  end

  def sparse_file(size)
    path = Payload.write("sparse", "")
    File.truncate(path, size)
    Cleanup.close(File.open(path, "rb"))
  end

  KernelTls::KINDS.each_key do |kind|
    context "with #{kind}" do
      Waiters::ALL.each do |waiter|
        it "raises at once, waiting by #{waiter}, when the peer was reset before" do
          [payload_file(8_192), sparse_file(too_much), StringIO.new(payload(8_192))].each do |source|
            channel = channel(kind)
            reset_and_consume(channel, channel.read)
            error = start_copy(waiter, channel.out, source, head: head).error
            expect(gone).to include(error.class)
            expect(error.bytes_sent).to eq(0)
          end
        end

        it "raises at once, waiting by #{waiter}, when the peer resets after a step" do
          [sparse_file(too_much), endless.new].each do |source|
            channel = channel(kind)
            reader = channel.read
            after = nil
            error = start_copy(waiter, channel.out, source, 0, too_much) do |sent|
              reset_and_consume(channel, reader) unless after
              after ||= sent
            end.error
            expect(gone).to include(error.class), error.inspect
            expect(error.bytes_sent).to eq(after)
          end
        end
      end

      # Without the drain it returns as soon as the TLS layer holds the rest.
      it "returns with the socket writable, or times out" do
        outcomes = (4..160).step(12).map do |kib|
          channel = channel(kind, small: true)
          channel.read(:stalled)
          size = kib * 1024
          begin
            described_class.copy_to_socket(channel.out, sparse_file(size), timeout: 0.1)
            channel.writable? ? :writable : "#{kib} KiB: returned with a full socket"
          rescue described_class::TimeoutError => e
            expect(e.bytes_expected).to eq(size)
            e.bytes_sent == size ? :in_the_end : :midway
          ensure
            Cleanup.run
          end
        end
        expect(outcomes.uniq).to contain_exactly(:writable, :in_the_end, :midway)
      end

      it "has let go of every byte when it returns: a close right after it loses none" do
        [Waiters::ALL, [true, false], [150_001, 777_777]].inject(:product).each do |(waiter, politely), size|
          channel = channel(kind, small: true)
          reader = channel.read(:stalled)
          sender = start_under(waiter) do
            S.copy_to_socket(channel.out, payload_file(size), head: head)
            politely ? channel.out.close : channel.wire.close
          end
          await_backpressure(channel, sender) if size > 600_000
          reader.go(:greedy)
          sender.value
          expect(reader.result).to be_payload(head.b + payload(size))
        end
      end
    end
  end

  context "with an error of the file behind the head" do
    eio = Errno::EIO::Errno
    { sendfile: false, fill: true }.each do |call, splice|
      Waiters::ALL.each do |waiter|
        it "leaves no head behind when #{call} fails, waiting by #{waiter}" do
          faults = { call => Faults::Rule.new(:fail, eio, 0, Faults::ALWAYS) }
          outcome = Faults.run(:received_after_failure, size: 300_007, head:, faults:, waiter:, splice:)
          expect(outcome[:error]).to include(class: "Errno::EIO", sent: 0)
          expect(outcome[:bytes]).to eq(head.bytesize)
        end
      end
    end
  end

  context "with a reset between two system calls of one step" do
    { sendfile: false, drain: true, sendmsg: false }.each do |call, splice|
      %i[thread fiber_async].each do |waiter|
        it "raises at the next one behind #{call}, waiting by #{waiter}" do
          memory = call == :sendmsg
          size = memory ? 64 << 20 : too_much
          outcome = Faults.run(:reset_unheard, call, size:, waiter:, splice:, memory:)
          expect(outcome[:error]).not_to be_nil
          expect(gone.map(&:name)).to include(outcome[:error][:class])
          expect(outcome[:error][:sent]).to be < 16 << 20
        end
      end
    end
  end
end
