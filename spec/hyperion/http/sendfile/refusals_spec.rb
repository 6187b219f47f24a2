# frozen_string_literal: true

# What the kernel will not do by one call goes by another, from where the socket stands; what it can't do at all
# raises, with the count right.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "refused by the kernel" do
  include Faults::Helpers

  size = 300_007
  head = "HTTP/1.1 200 OK\r\n\r\n"
  waiters = %i[thread blocking fiber_async]
  rule = ->(action, value = 0, skip: 0, times: Faults::ALWAYS) { Faults::Rule.new(action, value, skip, times) }
  fail_with = ->(errno, **options) { rule.call(:fail, errno::Errno, **options) }

  # +full+: to a reader that reads nothing until the sender sleeps on the full socket.
  define_method(:deliver) do |waiter, source, *region, full: false, splice: false, **options|
    with_splice(splice) do
      channel = channel(:tcp, small: full)
      reader = channel.read(full ? :stalled : :greedy)
      sender = start_copy(waiter, channel.out, source, *region, **options)
      if full
        await_backpressure(channel, sender)
        reader.go
      end
      said = sender.value
      channel.finish
      [reader.result, said]
    end
  end

  describe "a FIFO as the source" do
    # A FIFO that holds, or is being written, +bytes+.
    define_method(:fifo) do |bytes|
      path = File.join(Payload.dir, "fifo-#{bytes.bytesize}-#{rand(1 << 60)}")
      File.mkfifo(path)
      Cleanup.later { File.delete(path) }
      writer = Thread.new { File.binwrite(path, bytes) }
      Cleanup.later { writer.kill.join }
      Cleanup.close(File.open(path, "rb"))
    end

    [2_000, 60_000, size].product(waiters, [true, false]).each do |bytes, waiter, splice|
      it "is streamed (#{bytes} bytes, #{waiter}, splice: #{splice})" do
        [nil, bytes].each do |length|
          received, said = deliver(waiter, fifo(payload(bytes)), 0, length, head: head, splice: splice)
          expect(received).to be_payload(head.b + payload(bytes))
          expect(said).to eq(bytes)
        end
      end
    end

    it "is truncated where it ends before the length given" do
      waiters.each do |waiter|
        expect { deliver(waiter, fifo(payload(60_000)), 0, 60_001) }
          .to raise_error(S::TruncatedError, /60000 of 60001/)
      end
    end

    it "is refused with an offset, before anything is sent" do
      [100, 60_000, size].each do |length|
        channel = channel(:tcp)
        reader = channel.read
        expect { S.copy_to_socket(channel.out, fifo(payload(size)), 5, length, head: head) }
          .to raise_error(ArgumentError, /offset/)
        channel.finish
        expect(reader.wait.bytes).to eq(0)
      end
    end
  end

  describe "a file of /proc as the source" do
    path = "/proc/kallsyms" # long, and stays as it is
    available = File.readable?(path) && IO.copy_stream(path, File::NULL, size + 1) == size + 1

    define_method(:content) { @content ||= File.open(path, "rb") { |file| file.read(size) } }

    define_method(:proc_file) { |name = path| Cleanup.close(File.open(name, "rb")) }

    waiters.product([true, false]).each do |waiter, splice|
      it "goes out to its end where no length is given (#{waiter}, splice: #{splice})" do
        received, said = deliver(waiter, proc_file("/proc/version"), splice: splice, head: head)
        expect(received).to eq(head.b + File.binread("/proc/version"))
        expect(said).to eq(received.bytesize - head.bytesize)
      end

      it "goes out for the length given (#{waiter}, splice: #{splice})" do
        skip "no #{path} here" unless available
        [2_000, 60_000, size].each do |length|
          received, said = deliver(waiter, proc_file, 0, length, splice: splice, head: head)
          expect(received).to be_payload(head.b + content.byteslice(0, length))
          expect(said).to eq(length)
        end
      end

      it "goes out through a full socket, though its size is said to be 0 (#{waiter}, splice: #{splice})" do
        skip "no #{path} here" unless available
        [60_000, size].each do |length|
          received, said = deliver(waiter, proc_file, 0, length, splice: splice, full: true)
          expect(received).to be_payload(content.byteslice(0, length))
          expect(said).to eq(length)
        end
      end
    end
  end

  describe "a file opened with O_APPEND as the destination" do
    [2_000, 60_000, size].product(waiters, [true, false]).each do |bytes, waiter, splice|
      it "gets every byte (#{bytes} bytes, #{waiter}, splice: #{splice})" do
        path = Payload.write("appended", "before ")
        with_splice(splice) do
          File.open(path, "ab") do |out|
            expect(copy_under(waiter, out, payload_file(bytes), 0, bytes, head: head)).to eq(bytes)
          end
        end
        expect(File.binread(path)).to be_payload("before #{head}".b + payload(bytes))
      end
    end
  end

  describe "/dev/zero as the source" do
    [2_000, 60_000, size].product(waiters, [true, false]).each do |bytes, waiter, splice|
      it "gives as many zeros as asked for (#{bytes} bytes, #{waiter}, splice: #{splice})" do
        zero = Cleanup.close(File.open("/dev/zero", "rb"))
        received, said = deliver(waiter, zero, 0, bytes, full: bytes > 2_000, splice: splice)
        expect(received).to be_payload("\0".b * bytes)
        expect(said).to eq(bytes)
      end
    end
  end

  # Bytes moved by each call, as the preloaded library saw it.
  define_method(:moved_by) do |report, call|
    report[:journal].select { |entry| entry.call == call && entry.result.positive? }.sum(&:result)
  end

  refusals = [Errno::EINVAL, Errno::ENOSYS, Errno::EOPNOTSUPP, Errno::EPERM]

  describe "by injection" do
    refusals.product(%i[sendfile fill drain], %i[thread fiber_async], [0, 1]).each do |errno, call, waiter, skip|
      it "goes on by another call (#{errno} from #{call}, #{waiter}, #{skip.zero? ? "first" : "midway"})" do
        splice = call != :sendfile
        faults = { call => fail_with.call(errno, skip: skip) }
        faults[:sendfile] = fail_with.call(errno) if splice && skip.zero? # all the way down
        report = Faults.run(:deliver, size: size, faults: faults, waiter: waiter, splice: splice, head: head)

        expect(report[:fired][call]).to be >= 1
        expect(report[:received]).to be_payload(head.b + payload(size))
        expect(report).to include(error: nil, said: size)
        expect(report[:totals].last).to eq(size)
        expect(report[:splice]).to be(!(splice && errno == Errno::ENOSYS)) # a mark for life
        if skip.positive?
          expect(moved_by(report, splice ? :drain : :sendfile)).to be_between(1, size - 1)
        else
          expect(moved_by(report, :sendmsg)).to be >= size
        end
      end
    end

    it "goes on through a full socket" do
      { sendfile: false, drain: true }.each do |call, splice|
        report = Faults.run(:deliver, size: 1_000_003, faults: { call => fail_with.call(Errno::EINVAL, skip: 1) },
                                      splice: splice, slow: true)
        expect(report[:fired][call]).to be >= 1
        expect(report[:received]).to be_payload(payload(1_000_003))
      end
    end

    it "tells of a peer that is gone in macOS's words, too" do
      { 1_000 => 0, size => 1 }.to_a.product(waiters).each do |(bytes, skip), waiter|
        faults = { sendfile: fail_with.call(Errno::EINVAL), sendmsg: fail_with.call(Errno::EPROTOTYPE, skip: skip) }
        report = Faults.run(:deliver, size: bytes, head: head, waiter: waiter, faults: faults)
        expect(report[:fired][:sendmsg]).to be_positive
        sent = [report[:received].bytesize - head.bytesize, 0].max
        expect(report[:error]).to include(class: "Errno::EPIPE", sent: sent)
      end
    end

    it "sends a small body by memory" do
      refusals.each do |errno|
        report = Faults.run(:primitive, name: :copy_small, size: 60_000, faults: { sendfile: fail_with.call(errno) })
        expect(report).to include(fired: include(sendfile: 1), error: nil, said: 60_000)
        expect(report[:received]).to be_payload(payload(60_000))
      end
    end

    { copy: :sendfile, copy_splice: :fill, copy_splice_into_pipe: :drain }.each do |name, call|
      refusals.each do |errno|
        it "makes #{name} :unsupported, and marks splice for ENOSYS alone (#{errno})" do
          report = Faults.run(:primitive, name: name, size: size, faults: { call => fail_with.call(errno) })
          expect(report).to include(fired: include(call => 1), error: nil, said: [0, :unsupported], received: "")
          expect(report[:splice]).to be(!(name != :copy && errno == Errno::ENOSYS))
        end
      end
    end

    # From these calls the same numbers are errors like others.
    (refusals + [Errno::EIO, Errno::ENOMEM]).product(%i[pread sendmsg]).each do |errno, call|
      it "raises #{errno} from #{call}, with the count right" do
        %i[thread fiber_async].product([0, 3]).each do |waiter, skip|
          report = Faults.run(:deliver, size: size, waiter: waiter, nonblock: false,
                                        faults: { call => fail_with.call(errno, skip: skip) })
          expect(report[:fired][call]).to be >= 1
          expect(report[:error]).to include(class: errno.name, sent: report[:received].bytesize, expected: size)
          expect(report[:received]).to be_payload(payload(size).byteslice(0, report[:received].bytesize))
          expect(report[:totals].last.to_i).to eq(report[:received].bytesize)
          expect(report[:received].bytesize).to be > 0 if skip.positive?
        end
      end
    end

    [Errno::EIO, Errno::ENOMEM].product(%i[sendfile fill drain]).each do |errno, call|
      it "raises #{errno} from #{call}, with the count right" do
        %i[thread fiber_async].product([0, 1]).each do |waiter, skip|
          report = Faults.run(:deliver, size: size, waiter: waiter, splice: call != :sendfile,
                                        faults: { call => fail_with.call(errno, skip: skip) })
          expect(report[:fired][call]).to be >= 1
          expect(report[:error]).to include(class: errno.name, sent: report[:received].bytesize, expected: size)
          expect(report[:received]).to be_payload(payload(size).byteslice(0, report[:received].bytesize))
          expect(report[:totals].last.to_i).to eq(report[:received].bytesize)
          expect(report[:splice]).to be(true)
        end
      end
    end

    {
      "EINTR" => fail_with.call(Errno::EINTR, skip: 1, times: 3),
      "EINTR at first" => fail_with.call(Errno::EINTR, times: 3),
      "EAGAIN" => fail_with.call(Errno::EAGAIN, skip: 1, times: 3),
      "EAGAIN at first" => fail_with.call(Errno::EAGAIN, times: 3),
      "short counts" => rule.call(:shorten, 7_001),
      "counts of one byte" => rule.call(:shorten, 1, times: 50)
    }.each do |what, fault|
      { sendfile: {}, fill: { splice: true }, drain: { splice: true }, pread: { nonblock: false },
        sendmsg: { nonblock: false } }
        .each do |call, options|
        it "sends every byte in spite of #{what} from #{call}" do
          %i[thread fiber_async].each do |waiter|
            report = Faults.run(:deliver, size: size, waiter: waiter, head: head, faults: { call => fault }, **options)
            expect(report[:fired][call]).to be >= 1
            expect(report).to include(error: nil, said: size)
            expect(report[:received]).to be_payload(head.b + payload(size))
            expect(report[:totals].last).to eq(size)
          end
        end
      end
    end

    { sendfile: {}, fill: { splice: true }, drain: { splice: true }, pread: { nonblock: false },
      sendmsg: { nonblock: false } }
      .each do |call, options|
      it "neither spins nor waits for ever while #{call} is interrupted every time" do
        %i[thread fiber_async].each do |waiter|
          report = Faults.run(:deliver, size: size, waiter: waiter, timeout: 0.2,
                                        faults: { call => fail_with.call(Errno::EINTR, skip: 1) }, **options)
          expect(report[:error]).to include(class: "Hyperion::Http::Sendfile::TimeoutError",
                                            sent: report[:received].bytesize)
          expect(report[:fired][call]).to be_between(2, 400) # spinning, it would be tens of thousands
        end
      end
    end

    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EPERM].each do |errno|
      it "goes on without the pipe that is not to be had (#{errno})" do
        faults = { pipe: fail_with.call(errno) }
        %i[thread fiber_async].each do |waiter|
          report = Faults.run(:deliver, size: size, waiter: waiter, splice: true, faults: faults)
          expect(report[:fired][:pipe]).to be_positive
          expect(report[:journal].map(&:call)).not_to include(:fill)
          expect(report).to include(error: nil, said: size, splice: true)
          expect(report[:received]).to be_payload(payload(size))
        end

        report = Faults.run(:primitive, name: :copy_splice, size: size, faults: faults)
        expect(report).to include(error: nil, said: [0, :unsupported], received: "", splice: true)
      end
    end

    { sendfile: {}, fill: { splice: true }, pread: { nonblock: false } }.each do |call, options|
      it "takes 0 from #{call} for the end of the file" do
        %i[thread fiber_async].product([0, 1]).each do |waiter, skip|
          faults = { call => rule.call(:zero, skip: skip) }
          report = Faults.run(:deliver, size: size, waiter: waiter, faults: faults,
                                        **options)
          expect(report[:fired][call]).to be >= 1
          sent = report[:received].bytesize
          expect(report[:error]).to include(class: "Hyperion::Http::Sendfile::TruncatedError", sent: sent,
                                            expected: size)
          expect(report[:received]).to be_payload(payload(size).byteslice(0, sent))
          expect(sent).to(skip.zero? ? eq(0) : be_positive)
        end
      end
    end
  end
end
