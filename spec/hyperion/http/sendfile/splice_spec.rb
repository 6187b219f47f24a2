# frozen_string_literal: true

# The splice route: what is in the pipe is the next of the file, and the pipe lives as long as one response.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "by splice" do
  include Faults::Helpers

  size = 300_007
  splice_f_more = 4
  f_setpipe_sz = 1031

  define_method(:pipe) do |bytes = nil|
    IO.pipe.each { |io| Cleanup.close(io) }.tap { |_, writer| writer.fcntl(f_setpipe_sz, bytes) if bytes }
  end

  define_method(:queued) do |pipe_r|
    Descriptors.ioctl(pipe_r, Descriptors::FIONREAD)
  end

  # Calls copy_splice_into_pipe until +length+ bytes are out or the status is +:eof+. Holds after each call: what was
  # queued before is gone before anything new is. Returns the bytes sent, the statuses, and how often a call left
  # bytes in the pipe.
  define_method(:drive) do |channel, file, length, pipe, &when_full|
    sent = 0
    statuses = []
    residues = 0
    until sent == length || statuses.last == :eof
      before = queued(pipe[0])
      bytes, status = S.copy_splice_into_pipe(channel.out, file, sent, length - sent, *pipe)
      after = queued(pipe[0])
      expect(after).to eq(before - bytes) if bytes < before
      expect(after).to eq(0) if %i[done eof].include?(status)
      residues += 1 if after.positive?
      sent += bytes
      statuses << status
      next unless %i[eagain partial].include?(status)

      when_full&.call(sent, after)
      channel.wire.wait_writable(5) if status == :eagain
    end
    [sent, statuses, residues]
  end

  describe ".copy_splice_into_pipe" do
    { tcp: nil, unix: nil, pipe: nil }.each_key do |kind|
      [nil, 4_096].each do |pipe_size|
        it "drains what is queued, in order, and only then refills (#{kind}, a pipe of #{pipe_size || "any"} bytes)" do
          channel = channel(kind, small: true)
          reader = channel.read(:stalled)
          going = false
          left = nil
          sent, statuses, residues = drive(channel, payload_file(size), size, pipe(pipe_size)) do |_, after|
            next if going || channel.writable?

            going = true
            left = after
            reader.go(:slow)
          end
          expect(sent).to eq(size)
          expect(statuses.last).to eq(:done)
          expect(statuses).to include(:eagain)
          expect(residues).to be > 3
          expect(left).to be > 0 if pipe_size.nil?
          channel.finish
          expect(reader.result).to be_payload(payload(size))
        end
      end
    end

    it "counts what reached the socket, and nothing that stayed in the pipe" do
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      pipe = pipe()
      file = payload_file(size)
      sent = 0
      loop do
        bytes, status = S.copy_splice_into_pipe(channel.out, file, sent, size - sent, *pipe)
        sent += bytes
        break if status == :eagain
      end
      expect(queued(pipe[0])).to be > 0
      channel.finish
      expect(reader.go.wait.bytes).to eq(sent)
    end

    it "drains what is queued at the end of the file, and then says :eof" do
      [nil, 4_096].each do |pipe_size|
        channel = channel(:tcp, small: true)
        reader = channel.read(:stalled)
        sent, statuses, residues = drive(channel, payload_file(60_000), size, pipe(pipe_size)) { reader.go(:slow) }
        expect(sent).to eq(60_000)
        expect(statuses.last).to eq(:eof)
        expect(statuses.count(:eof)).to eq(1)
        expect(residues).to be > 0
        channel.finish
        expect(reader.result).to be_payload(payload(60_000))
      end
    end

    it "leaves the caller's pipe open, and its bytes in it" do
      channel = channel(:tcp)
      pipe = pipe()
      S.copy_splice_into_pipe(channel.out, payload_file(size), 0, 4_096, *pipe)
      pipe[1].write("still here")
      expect(pipe[0].readpartial(100)).to eq("still here")
    end

    it "says :unsupported of what is no pipe, and marks nothing" do
      channel = channel(:tcp)
      null = Cleanup.close(File.open(File::NULL, "r+"))
      expect(S.copy_splice_into_pipe(channel.out, payload_file(size), 0, 9, null, null)).to eq([0, :unsupported])
      with_splice { expect(S.splice_runtime_supported?).to be(true) }
    end
  end

  describe ".copy_splice" do
    it "reads again what stayed in its pipe" do
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      file = payload_file(size)
      sent = 0
      statuses = []
      until sent == size
        bytes, status = S.copy_splice(channel.out, file, sent, size - sent)
        sent += bytes
        statuses << status
        next unless status == :eagain

        reader.go(:slow)
        channel.wire.wait_writable(5)
      end
      expect(statuses).to include(:eagain)
      expect(statuses.last).to eq(:done)
      channel.finish
      expect(reader.result).to be_payload(payload(size))
    end

    it "leaves no descriptor open, however it ends" do
      file = payload_file(1_500)
      gone = channel(:tcp)
      gone.peer.close
      once = lambda do
        channel = channel(:tcp)
        S.copy_splice(channel.out, file, 0, 1_500) # done
        S.copy_splice(channel.out, file, 0, 9_000) # the file ends
        S.copy_splice(channel(:tcp, nonblock: false).out, file, 0, 1_500) # unsupported
        2.times do
          S.copy_splice(gone.out, file, 0, 1_500)
        rescue SystemCallError
          next
        end
        [[-1, 1], [0, -1], [nil, 1], [0, 2**63]].each do |offset, length|
          expect { S.copy_splice(channel.out, file, offset, length) }
            .to(raise_error { |error| expect(error).to be_an(ArgumentError).or be_a(TypeError).or be_a(RangeError) })
        end
        expect { S.copy_splice(StringIO.new, file, 0, 1) }.to raise_error(TypeError)
        expect { S.copy_splice(channel.out, Object.new, 0, 1) }.to raise_error(TypeError)
        channel.wire.close
        channel.peer.close
        expect { S.copy_splice(channel.out, file, 0, 1) }.to raise_error(IOError)
      end
      once.call
      before = Dir.children("/proc/self/fd").size
      GC.disable
      20.times { once.call }
      channels_left_open = 20 * 2 # the blocking one, for the Cleanup
      expect(Dir.children("/proc/self/fd").size).to be <= before + channels_left_open
    ensure
      GC.enable
    end
  end

  describe "as a route" do
    around { |example| with_splice { example.run } }

    # The pipes opened while the example runs.
    let!(:pipes) { observe_pipes }

    define_method(:opened) do |mode = :greedy, **options|
      channel = channel(:tcp, **options)
      [channel, mode && channel.read(mode)]
    end

    define_method(:expect_one_pipe_closed) do
      expect(pipes.size).to eq(1)
      expect(pipes.first).not_to be_open
    end

    waiters = %i[thread blocking]

    waiters.each do |waiter|
      it "closes its pipe after success (#{waiter})" do
        channel, = opened
        expect(copy_under(waiter, channel.out, payload_file(size))).to eq(size)
        expect_one_pipe_closed
      end

      it "closes its pipe when the peer is gone (#{waiter})" do
        channel, reader = opened(:stalled, small: true)
        sender = start_copy(waiter, channel.out, payload_file(size))
        await_backpressure(channel, sender)
        reader.reset
        expect { sender.value }.to raise_error(SystemCallError) { |error|
          expect(error).to be_a(Errno::EPIPE).or be_a(Errno::ECONNRESET)
        }
        expect_one_pipe_closed
      end

      it "closes its pipe when the sender is killed (#{waiter})" do
        channel, = opened(:stalled, small: true)
        sender = start_copy(waiter, channel.out, payload_file(size))
        await_backpressure(channel, sender)
        sender.thread.kill.join(5)
        expect_one_pipe_closed
      end

      it "closes its pipe at the timeout (#{waiter})" do
        channel, = opened(:stalled, small: true)
        expect { copy_under(waiter, channel.out, payload_file(size), timeout: 0.05) }.to raise_error(S::TimeoutError)
        expect_one_pipe_closed
      end

      it "closes its pipe when the file is too short (#{waiter})" do
        channel, reader = opened
        expect do
          copy_under(waiter, channel.out, payload_file(size), 0, size + 1)
        end.to raise_error(S::TruncatedError) { |error|
                 expect([error.bytes_sent,
                         error.bytes_expected]).to eq([size, size + 1])
               }
        expect_one_pipe_closed
        channel.finish
        expect(reader.result).to be_payload(payload(size))
      end

      it "closes its pipe when the block raises (#{waiter})" do
        channel, = opened
        expect { copy_under(waiter, channel.out, payload_file(size)) { raise IndexError } }.to raise_error(IndexError)
        expect_one_pipe_closed
      end

      it "closes its pipe when out is closed (#{waiter})" do
        channel, = opened(:stalled, small: true)
        sender = start_copy(waiter, channel.out, payload_file(size))
        await_backpressure(channel, sender)
        channel.out.close
        expect { sender.value }.to raise_error(IOError)
        expect_one_pipe_closed
      end
    end

    it "closes its pipe when a task is stopped", needs: :schedulers do
      channel, = opened(:stalled, small: true)
      start_under(:fiber_async) do
        task = Async { S.copy_to_socket(channel.out, payload_file(size)) }
        sleep 0.002 while channel.writable?
        expect(pipes.map(&:open?)).to eq([true])
        task.stop
        expect(pipes.map(&:open?)).to eq([false])
      end.value
    end

    %i[thread fiber_async].each do |waiter|
      it "changes to sendfile midway from where the socket stands, with bytes in the pipe (#{waiter})" do
        channel = channel(:tcp, small: true)
        reader = channel.read(:slow)
        left = nil
        calls = 0
        used = nil
        allow(S).to receive(:copy_splice_into_pipe).and_wrap_original do |original, *arguments|
          used = arguments.last(2)
          if left
            [0, :unsupported]
          else
            original.call(*arguments).tap do
              calls += 1
              left = queued(used[0]) if calls > 1 && queued(used[0]).positive?
            end
          end
        end
        expect(copy_under(waiter, channel.out, payload_file(size))).to eq(size)
        expect(left).to be > 0
        expect(used).to all(be_closed)
        expect_one_pipe_closed
        channel.finish
        expect(reader.result).to be_payload(payload(size))
      end
    end

    it "opens no pipe for a bad argument, nor for a small body" do
      channel, reader = opened
      file = payload_file(size)
      expect { S.copy_to_socket(channel.out, file, -1) }.to raise_error(ArgumentError)
      expect { S.copy_to_socket(channel.out, file, 0, 2**63) }.to raise_error(RangeError)
      expect { S.copy_to_socket(channel.out, file, 0, size, timeout: -1) }.to raise_error(ArgumentError)
      expect { S.copy_to_socket(channel.out, file, 0, size, head: 1) }.to raise_error(TypeError)
      expect { S.copy_to_socket(channel.out, file.dup.tap(&:close), 0, size) }.to raise_error(IOError)
      S.copy_to_socket(channel.out, file, 0, S::SPLICE_THRESHOLD)
      expect(pipes).to be_empty
      S.copy_to_socket(channel.out, file, 0, S::SPLICE_THRESHOLD + 1)
      expect_one_pipe_closed
      channel.finish
      expect(reader.wait.bytes).to eq((2 * S::SPLICE_THRESHOLD) + 1)
    end

    # A lasting SPLICE_F_MORE holds the tail of the response back.
    [70_000, size, 5_000_011].product(%i[thread fiber_async], [true, false]).each do |bytes, waiter, small|
      it "says that more follows only while more does (#{bytes} bytes, #{waiter}#{", small buffers" if small})" do
        next if small && bytes > size

        report = Faults.run(:deliver, size: bytes, faults: {}, waiter: waiter, splice: true, small: small)
        drains = report[:journal].select { |entry| entry.call == :drain && entry.result.positive? }
        expect(report[:received]).to be_payload(payload(bytes))
        expect(drains.sum(&:result)).to eq(bytes)
        expect(drains.last.flags & splice_f_more).to eq(0)
        expect(drains.map { |entry| entry.flags & splice_f_more }).to include(splice_f_more) if bytes > size
      end
    end
  end

  describe "when it is asked for" do
    it "is by HYPERION_HTTP_SPLICE=1 alone", needs: :schedulers do
      { nil => false, "" => false, "0" => false, "true" => false, "1" => true }.each do |value, supported|
        saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
        ENV["HYPERION_HTTP_SPLICE"] = value
        expect(S.splice_runtime_supported?).to be(supported)
        channel = channel(:tcp)
        reader = channel.read
        calls = observe_primitives
        expect(run_under(:fiber_async) { S.copy_to_socket(channel.out, payload_file(size)) }).to eq(size)
        expect(calls.names.uniq - [:fadvise_sequential]).to eq([supported ? :copy_splice_into_pipe : :copy])
        channel.finish
        expect(reader.result).to be_payload(payload(size))
      ensure
        ENV["HYPERION_HTTP_SPLICE"] = saved
      end
    end

    it "is off for the life of a process after mark_splice_unsupported!" do
      before, answer, after, called, sha = with_splice do
        Faults.in_child do
          before = S.splice_runtime_supported?
          answer = S.mark_splice_unsupported!
          channel = channel(:tcp)
          reader = channel.read
          called = false
          S.singleton_class.prepend(Module.new { define_method(:copy_splice_into_pipe) { |*| called = true } })
          copy_under(:thread, channel.out, payload_file(size))
          channel.finish
          [before, answer, S.splice_runtime_supported?, called, reader.sha256]
        end
      end
      expect([before, answer, after, called]).to eq([true, nil, false, false])
      expect(sha).to eq(Digest::SHA256.hexdigest(payload(size)))
      with_splice { expect(S.splice_runtime_supported?).to be(true) }
    end
  end
end
