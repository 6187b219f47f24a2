# frozen_string_literal: true

# A file that is not in the page cache keeps only its own fiber waiting.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "sending a cold file in a fiber", needs: :schedulers do
  disk = 3_000 # ms

  [1_000, 60_000, 1_000_003].product(Waiters::FIBERS, [nil, "head"]).each do |size, waiter, head|
    it "lets other fibers run while the disk is waited for (#{size} bytes, #{waiter}, head: #{head.inspect})" do
      asked = size > S.small_file_threshold ? 1 : 2 # of a small one before the waiter is known, too
      report = Faults.run(:beside_a_heartbeat, size: size, waiter: waiter, disk: disk, head: head, refusals: asked)

      expect(report).to include(error: nil, said: size)
      expect(report[:fired]).to include(preadv2: asked, pread: 1)
      expect(report[:beats]).to be >= 5 # of the other fiber, from the beginning of that read on
      expect(report[:received]).to be_payload(head.to_s.b + payload(size))
    end
  end

  it "is read in though Ruby wants the thread for something else before it can begin" do
    report = Faults.run(:read_in_out_of_turn, size: 100_000)
    expect(report[:fired]).to include(dup: 1)
    expect(report[:journal].select { |entry| entry.call == :pread }.sum(&:result)).to eq(100_000)
  end

  it "sends what the kernel never says that it has" do
    report = Faults.run(:beside_a_heartbeat, size: 12_000_003, waiter: :fiber_async, disk: 0, turns: nil,
                                             refusals: Faults::ALWAYS)

    expect(report).to include(error: nil, said: 12_000_003)
    expect(report[:fired][:preadv2]).to be > 1
    expect(report[:received]).to be_payload(payload(12_000_003))
  end

  # Of overlayfs, FUSE, squashfs, erofs, NFS; of a seccomp filter; of a kernel without the call.
  [Errno::EOPNOTSUPP, Errno::EIO, Errno::ENOSYS].product([1_000, 300_000], [nil, "head"]).each do |errno, size, head|
    it "reads beside the loop where #{errno} leaves it unknown (#{size} bytes, head: #{head.inspect})" do
      report = Faults.run(:beside_a_heartbeat, size: size, waiter: :fiber_async, disk: disk, head: head,
                                               refusal: errno, refusals: Faults::ALWAYS)

      expect(report).to include(error: nil, said: size)
      expect(report[:fired][:preadv2]).to be >= 1
      expect(report[:beats]).to be >= 5
      expect(report[:received]).to be_payload(head.to_s.b + payload(size))
    end
  end

  it "asks nothing of the page cache outside of an event loop" do
    report = Faults.run(:deliver, size: 300_000, waiter: :thread, faults: {})

    expect(report).to include(error: nil, said: 300_000)
    expect(report[:journal].map(&:call)).not_to include(:preadv2)
  end

  it "does not count the disk's time as the client's" do
    [Errno::EAGAIN, Errno::EOPNOTSUPP].each do |errno|
      report = Faults.run(:deliver, size: 300_000, waiter: :fiber_async, timeout: 0.2,
                                    faults: { preadv2: Faults::Rule.new(:fail, errno::Errno, 0, Faults::ALWAYS),
                                              pread: Faults::Rule.new(:dawdle_before, 500, 0, 4) })

      expect(report).to include(error: nil, said: 300_000)
      expect(report[:received]).to be_payload(payload(300_000))
    end
  end

  it "can be interrupted while the disk hangs" do
    native = S.const_get(:Native)
    allow(native).to receive(:resident?).and_return(false)
    allow(native).to receive(:read_in) { sleep }
    out = channel(:tcp).out
    file = payload_file(100_000)
    limit = Class.new(StandardError)
    sender = start_under(:fiber_async) do
      Async::Task.current.with_timeout(0.05, limit) { S.copy_to_socket(out, file, 0, 100_000) }
    end
    expect(sender.error).to be_a(limit)
  end

  it "goes on where no thread can be had to read" do
    allow(S.const_get(:Native)).to receive(:resident?).and_return(false)
    refused = 0
    allow(Thread).to receive(:new).and_wrap_original do |original, *arguments, &block|
      if caller_locations.any? { |location| location.path.end_with?("read_ahead.rb") }
        refused += 1
        raise ThreadError, "can't create Thread: Resource temporarily unavailable"
      end
      original.call(*arguments, &block)
    end
    channel = channel(:tcp)
    reader = channel.read
    file = payload_file(100_000)
    sent = start_under(:fiber_async) { Array.new(6) { S.copy_to_socket(channel.out, file, 0, 100_000) } }
    expect(sent.value).to all(eq(100_000))
    channel.finish
    expect(refused).to be >= 6
    expect(reader.result).to be_payload(payload(100_000) * 6)
  end

  it "goes on when the threads that read are killed" do
    native = S.const_get(:Native)
    allow(native).to receive(:resident?).and_return(false)
    reading = Thread::Queue.new
    hangs = true
    allow(native).to receive(:read_in) { hangs && (reading << Thread.current) && sleep }
    channels = Array.new(18) { channel(:tcp) }
    readers = channels.map(&:read)
    file = payload_file(100_000)
    sender = start_under(:fiber_async) do
      channels.each { |channel| Fiber.schedule { S.copy_to_socket(channel.out, file, 0, 100_000) } }
    end
    threads = Array.new(16) { reading.pop }
    expect(reading).to be_empty
    hangs = false
    threads.each(&:kill)
    sender.value
    channels.each(&:finish)
    expect(readers.map(&:result)).to all(be_payload(payload(100_000)))
  end

  it "leaves the disk to threads, after it was interrupted while it began one" do
    native = S.const_get(:Native)
    allow(native).to receive(:resident?).and_return(false)
    by = []
    allow(native).to receive(:read_in) { by << Thread.current }
    killed = false
    allow(Thread).to receive(:new).and_wrap_original do |original, *arguments, &block|
      original.call(*arguments, &block).tap do
        if !killed && caller_locations.any? { |location| location.path.end_with?("read_ahead.rb") }
          killed = true
          asker = Thread.current
          interrupter = original.call { asker.raise(IOError, "midway") }
          Thread.pass while interrupter.alive?
        end
      end
    end
    channel = channel(:tcp)
    channel.read
    file = payload_file(100_000)
    sender = start_under(:fiber_async) do
      5.times do
        S.copy_to_socket(channel.out, file, 0, 100_000)
      rescue IOError
        nil
      end
      Thread.current
    end
    expect(by).not_to include(sender.value)
    expect(by.size).to eq(5)
  end

  it "ends a job that a thread has taken, wherever that is killed" do
    native = S.const_get(:Native)
    allow(native).to receive(:resident?).and_return(false)
    channel = channel(:tcp)
    reader = channel.read
    file = payload_file(100_000)
    others = Thread.list
    killer = nil
    sender = start_under(:fiber_async) do
      others << Thread.current
      killer = Thread.new { loop { (Thread.list - others - [Thread.current]).each(&:kill) && Thread.pass } }
      Array.new(100) { S.copy_to_socket(channel.out, file, 0, 100_000) }
    end
    expect(sender.value).to all(eq(100_000))
    killer.kill.join
    channel.finish
    expect(reader.result).to be_payload(payload(100_000) * 100)
  end

  # Another thread would take bytes of it after the fiber was given up.
  it "reads a pipe by itself" do
    channel = channel(:tcp)
    reader = channel.read
    source, writer = IO.pipe.each { |io| Cleanup.close(io) }
    writer.write("some bytes")
    writer.close
    threads = []
    source.define_singleton_method(:readpartial) do |*arguments|
      threads << Thread.current
      super(*arguments)
    end
    sender = start_under(:fiber_async) { S.copy_to_socket(channel.out, source) && Thread.current }
    own = sender.value
    expect(threads.uniq).to eq([own])
    channel.finish
    expect(reader.result).to eq("some bytes")
  end

  it "does not move the position of a file whose offset it refuses" do
    file = payload_file(100_000)
    S.copy_to_socket(StringIO.new, file, 0, 100_000) # and so it is in the page cache
    refusal = start_under(:fiber_async) { S.copy_to_socket(channel(:tcp).out, file, -1, 10) }.error
    expect(refusal).to be_an(ArgumentError)
    expect(file.sysseek(0, IO::SEEK_CUR)).to eq(0)
  end
end
