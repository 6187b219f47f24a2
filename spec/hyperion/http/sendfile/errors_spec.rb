# frozen_string_literal: true

# What a server author can rescue, and what it tells.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile do
  describe "its errors" do
    it "have their place among Ruby's" do
      expect(S::TruncatedError.superclass).to eq(EOFError)
      expect(S::TimeoutError).to be < IOError
      expect(S::TruncatedError).not_to be < S::TimeoutError
    end

    it "tell how far the transfer came, in numbers and in words" do
      truncated = S::TruncatedError.new(123, 456)
      expect(truncated).to have_attributes(bytes_sent: 123, bytes_expected: 456)
      expect(truncated.message).to include("123", "456")

      timeout = S::TimeoutError.new(123, 456, 0.5)
      expect(timeout).to have_attributes(bytes_sent: 123, bytes_expected: 456)
      expect(timeout.message).to include("123", "456", "0.5")
    end
  end

  # Takes +room+ bytes, then raises.
  let(:failing_writer) do
    Class.new do
      attr_reader :taken

      def initialize(room, error)
        @room = room
        @error = error
        @taken = 0
      end

      def write(data)
        raise @error if @taken >= @room

        [data.bytesize, @room - @taken].min.tap { |taken| @taken += taken }
      end
    end
  end

  %i[copy_to_socket copy_to_socket_blocking].each do |name|
    describe ".#{name}" do
      def failure
        yield
        nil
      rescue StandardError, SecurityError => e
        e
      end

      { Errno::EPIPE => SystemCallError, Errno::EIO => SystemCallError, IOError => IOError, EOFError => IOError }
        .each do |class_raised, family|
          it "lets #{class_raised} of the destination through, with how far it came" do
            out = failing_writer.new(1_000 + 4, class_raised.new("stop"))
            error = failure { S.public_send(name, out, payload_file(8_192), 10, 8_000, head: "head") }
            expect(error).to be_an_instance_of(class_raised).and be_a(family)
            expect(error).to have_attributes(bytes_sent: 1_000, bytes_expected: 8_000)
            expect(error.message).to include("stop")
          end
        end

      it "tells of an error in the source how far it came" do
        source = Object.new
        source.define_singleton_method(:pread) do |length, offset, buffer = String.new|
          raise Errno::EIO if offset >= 300_000

          buffer.replace("x" * [length, 300_000 - offset].min)
        end
        out = StringIO.new
        error = failure { S.public_send(name, out, source, 0, 400_000) }
        expect(error).to be_an_instance_of(Errno::EIO).and have_attributes(bytes_sent: 300_000, bytes_expected: 400_000)
        expect(out.string.bytesize).to eq(300_000)
      end

      it "counts nothing of the region while the head is on its way" do
        out = failing_writer.new(2, Errno::EPIPE.new)
        error = failure { S.public_send(name, out, payload_file(1_500), head: "head") }
        expect(error).to have_attributes(bytes_sent: 0, bytes_expected: 1_500)
      end

      it "tells of a closed destination and of a closed file that nothing went out" do
        open_out = channel(:tcp).out
        closed_out = channel(:tcp).out.tap(&:close)
        closed_file = payload_file(1_500).tap(&:close)
        [[closed_out, payload_file(1_500)], [open_out, closed_file]].each do |out, file|
          [100, 100_000].each do |len|
            error = failure { S.public_send(name, out, file, 0, len) }
            expect(error).to be_an_instance_of(IOError).and have_attributes(bytes_sent: 0, bytes_expected: len)
          end
        end
      end

      it "tells of a file whose end was to be found, and of which nothing is known" do
        error = failure { S.public_send(name, failing_writer.new(3, Errno::EPIPE.new), StringIO.new("12345")) }
        expect(error).to have_attributes(bytes_sent: 3, bytes_expected: nil)
      end

      it "counts anew where an error is raised a second time" do
        stored = Errno::EPIPE.new
        counts = [1_000, 2_000].map do |room|
          failure { S.public_send(name, failing_writer.new(room, stored), payload_file(8_192)) }.bytes_sent
        end
        expect(counts).to eq([1_000, 2_000])
      end

      it "counts the outer transfer where the destination's own write is a transfer too" do
        method = name
        inner = failing_writer.new(300_000, Errno::EPIPE.new)
        outer = Object.new
        outer.define_singleton_method(:write) { |data| S.public_send(method, inner, StringIO.new(data)) }
        error = failure { S.public_send(name, outer, payload_file(1_000_003)) }
        expect(error).to have_attributes(bytes_sent: S::USERSPACE_CHUNK, bytes_expected: 1_000_003)
      end

      it "lets an error of the program's own through as it is" do
        own = Class.new(StandardError)
        error = failure { S.public_send(name, failing_writer.new(10, own.new("own")), payload_file(1_500)) }
        expect(error).to be_an_instance_of(own).and have_attributes(message: "own")
        error = failure { S.public_send(name, StringIO.new, payload_file(1_500)) { raise own } }
        expect(error).to be_an_instance_of(own)
      end

      # Gives so many bytes, then raises.
      def failing_source(room, error)
        Object.new.tap do |source|
          source.define_singleton_method(:pread) do |length, offset, buffer|
            raise error if offset >= room

            buffer.replace("x" * [length, room - offset].min)
          end
        end
      end

      [TypeError, ArgumentError, RangeError, Class.new(StandardError), SecurityError].each do |own|
        it "tells of #{own.name || own.superclass} from a source, destination or block midway how far it came" do
          reports = 0
          [
            failure { S.public_send(name, StringIO.new, failing_source(300_000, own), 0, 400_000, head: "head") },
            failure { S.public_send(name, failing_writer.new(300_000, own), failing_source(600_000, own), 0, 400_000) },
            failure do
              S.public_send(name, StringIO.new, payload_file(1_000_003)) { |sent| raise own if (reports = sent) > 1 }
            end
          ].zip([300_000, 300_000, -> { reports }]) do |error, sent|
            sent = sent.call if sent.respond_to?(:call)
            expect(error).to be_an_instance_of(own).and have_attributes(bytes_sent: sent)
          end
        end

        it "tells that the head is out, or may be, where #{own.name || own.superclass} comes then" do
          [failure { S.public_send(name, failing_writer.new(2, own), payload_file(10), head: "head") },
           failure { S.public_send(name, failing_writer.new(0, own), payload_file(10), head: "head") }].each do |error|
            expect(error).to be_an_instance_of(own).and have_attributes(bytes_sent: 0, bytes_expected: 10)
          end
        end

        it "leaves #{own.name || own.superclass} alone that comes before the first byte" do
          error = failure { S.public_send(name, StringIO.new, failing_source(0, own), 0, 400_000, head: "head") }
          expect(error).to be_an_instance_of(own)
          expect(error).not_to respond_to(:bytes_sent)
        end
      end

      it "tells of an error that is frozen, too, by a copy" do
        frozen = TypeError.new("made beforehand").freeze
        error = failure { S.public_send(name, StringIO.new, failing_source(300_000, frozen), 0, 400_000) }
        expect(error).to be_an_instance_of(TypeError).and have_attributes(message: "made beforehand",
                                                                          bytes_sent: 300_000)
      end

      it "begins no region that the source's pread does not reach the end of" do
        stub_const("Hyperion::Http::Sendfile::Sources::Positioned::REACH", 600_000)
        out = StringIO.new
        error = failure { S.public_send(name, out, failing_source(1_000_000, IOError), 0, 1_000_000, head: "head") }
        expect(error).to be_an_instance_of(RangeError)
        expect(error).not_to respond_to(:bytes_sent)
        expect(out.string).to eq("")
      end

      it "keeps where an error came from" do
        error = failure { S.public_send(name, failing_writer.new(10, Errno::EPIPE.new), payload_file(1_500)) }
        expect(error.backtrace.first).to start_with(__FILE__)
      end
    end
  end

  describe "a fiber scheduler with a fault" do
    # As itsi-scheduler, which does not take a wait for the same IO twice, and evt, whose answer is no Integer.
    faults = { "raises" => [ArgumentError, -> { raise ArgumentError, "register error: File exists" }],
               "returns what is no event" => [TypeError, -> { true }] }
    hooks = { io_wait: { small: true }, kernel_sleep: { kind: :writer } }

    faults.to_a.product(hooks.to_a).each do |(what, (cause, fault)), (hook, options)|
      next if hook == :kernel_sleep && what != "raises"

      it "is told as its own where its #{hook} #{what}", if: Fiber.respond_to?(:current_scheduler) do
        scheduler = Class.new(MinimalScheduler) do
          define_singleton_method(:to_s) { "Some::Scheduler" }
          define_method(hook) { |*| fault.call }
        end
        channel = channel(options.fetch(:kind, :tcp), small: options[:small])
        channel.read(options[:small] ? :stalled : :greedy)
        error = nil
        Thread.new do
          Fiber.set_scheduler(scheduler.new)
          Fiber.schedule do
            S.copy_to_socket(channel.out, payload_file(1_000_003), 0, 1_000_003)
          rescue StandardError => e
            error = e
          end
        end.join
        expect(error).to be_an_instance_of(IOError).and have_attributes(bytes_expected: 1_000_003, cause: be_a(cause))
        expect(error.bytes_sent).to be_positive
        expect(error.message).to match(/\Athe fiber scheduler Some::Scheduler failed.*#{cause}/)
      end
    end
  end

  # The minimal scheduler selects on the closed IO itself, and ends.
  (Waiters::ALL - %i[fiber_minimal]).each do |waiter|
    it "tells of a destination closed by another thread how far it came, waiting by #{waiter}" do
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      sender = start_copy(waiter, channel.out, payload_file(1_000_003), 0, 1_000_003)
      await_backpressure(channel, sender)
      channel.out.close
      error = sender.error
      expect(error).to be_a(IOError).and have_attributes(bytes_expected: 1_000_003)
      expect(reader.go(:greedy).result).to be_payload(payload(1_000_003).byteslice(0, error.bytes_sent))
    end
  end

  # All of it is out then, and only other fibers are let run.
  {
    "from a file" => {},
    "from a file, with a block" => { progress: proc {} },
    "from a file, to its end" => { len: nil },
    "from a source that is no file" => { source: Payload::Source.new(Payload.bytes(40_000)) },
    "over TLS" => { kind: :tls13 },
    "to a wrapper" => { kind: :wrapper },
    "to a writer" => { kind: :writer }
  }.each do |way, setting|
    it "tells how far it came where the fiber is interrupted after the last byte #{way}", needs: :schedulers do
      interrupt = Class.new(Exception) # rubocop:disable Lint/InheritException -- as Async::Stop is
      allow(S.const_get(:Waiters)::InFiber).to receive(:pause).and_call_original
      allow(S.const_get(:Waiters)::InFiber).to receive(:pause).with(0).and_raise(interrupt)
      channel = channel(setting.fetch(:kind, :unix))
      channel.read(:greedy)
      source = setting.fetch(:source) { payload_file(40_000) }
      sent = 0
      error = start_under(:fiber_async) do
        200.times { sent += S.copy_to_socket(channel.out, source, 0, setting.fetch(:len, 40_000), &setting[:progress]) }
      rescue interrupt => e
        e
      end.value
      expect(error).to be_an_instance_of(interrupt).and have_attributes(bytes_sent: 40_000, bytes_expected: 40_000)
      expect(sent).to be < 2 << 20
    end
  end
end
