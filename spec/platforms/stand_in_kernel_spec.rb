# frozen_string_literal: true

# What sendfile does on macOS and FreeBSD and not on Linux: bytes and an error in one call, and a head in it.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "over a sendfile that moves bytes and fails",
               if: StandInKernel.available? do
  size = 300_007
  small = 20_000 # by copy_small, and there by sendfile
  head = "HTTP/1.1 200 OK\r\nx-name: value\r\n\r\n"
  waiters = Waiters::ALL.select { |waiter| Waiters.by_kernel?(waiter) }
  # What leaves nothing undone but to try again, or another way.
  passing = [Errno::EAGAIN, Errno::EINTR, Errno::EBUSY, Errno::ENOTSUP, Errno::EINVAL, Errno::ENOSYS, Errno::EPERM]
  passing -= [Errno::EBUSY] if described_class.platform_tag == :darwin # who has no such error

  # On macOS a head takes the first piece of the region along, past sendfile.
  reaches_sendfile = lambda do |length, head_given|
    head_given.nil? || described_class.platform_tag != :darwin || length > described_class::SMALL_FILE_THRESHOLD
  end

  before { StandInKernel.seed(0) }
  after { StandInKernel.pass }

  # What arrived, and what the call said or raised.
  define_method(:deliver) do |waiter, length, **options|
    channel = channel(:tcp)
    reader = channel.read
    sender = start_copy(waiter, channel.out, payload_file(length), 0, length, **options)
    error = sender.error
    said = error || sender.value
    channel.finish
    [reader.result, said]
  end

  passing.each do |errno|
    it "delivers every byte through #{errno}, however many moved before it" do
      cases = waiters.product([small, size], [nil, head], [0, 1, head.bytesize, head.bytesize + 1, 15_000])
      cases.each do |waiter, length, head_given, after|
        StandInKernel.script(errno, after: after, times: 2)
        received, said = nil
        suffered = StandInKernel.counted(:suffered) { received, said = deliver(waiter, length, head: head_given) }
        expect(suffered.positive?).to be(reaches_sendfile.call(length, head_given))
        StandInKernel.pass
        expect(received).to be_payload(head_given.to_s.b + payload(length)), [waiter, length, head_given, after].inspect
        expect(said).to eq(length)
      end
    end
  end

  # What macOS says of a peer that is gone is EPIPE elsewhere.
  in_other_words = described_class.platform_tag == :darwin ? [Errno::ENOTCONN, Errno::EPROTOTYPE] : []
  [Errno::EPIPE, Errno::EIO, *in_other_words].each do |errno|
    it "raises for #{errno}, with the bytes counted that moved before it" do
      waiters.product([nil, head], [0, 1, 70, 15_000]).each do |waiter, head_given, after|
        StandInKernel.script(errno, after: after, times: 1_000)
        received, error = deliver(waiter, size, head: head_given)
        expected = head_given.to_s.b + payload(size)
        expect(error).to be_a(in_other_words.include?(errno) ? Errno::EPIPE : errno)
        expect(received).to be_payload(expected.byteslice(0, received.bytesize))
        expect(error.bytes_sent).to eq([received.bytesize - head_given.to_s.bytesize, 0].max)
        expect(received.bytesize).to be_between(after, size - 1)
      end
    end
  end

  it "takes no count from a call that failed before it wrote one" do
    [Errno::ENOSYS, Errno::EPERM, Errno::EINVAL].product(waiters, [small, size], [nil, head])
                                                .each do |errno, waiter, length, head_given|
      StandInKernel.script(errno, after: StandInKernel::NOT_TOUCHED)
      received, said = deliver(waiter, length, head: head_given)
      expect(received).to be_payload(head_given.to_s.b + payload(length))
      expect(said).to eq(length)
    end
  end

  it "does not take a bad descriptor for a success" do
    StandInKernel.script(Errno::EBADF, after: StandInKernel::NOT_TOUCHED)
    expect(deliver(:thread, size)).to match(["", an_instance_of(Errno::EBADF)])
  end

  it "answers a primitive's caller bytes first, and the error with the next call" do
    channel = channel(:tcp)
    StandInKernel.script(Errno::EPIPE, after: 1_000, times: 1)
    expect(described_class.copy(channel.out, payload_file(size), 0, size)).to eq([1_000, :partial])
    StandInKernel.script(Errno::EPIPE, after: 0)
    expect { described_class.copy(channel.out, payload_file(size), 1_000, 10) }.to raise_error(Errno::EPIPE)
    StandInKernel.script(Errno::EAGAIN, after: 0)
    expect(described_class.copy(channel.out, payload_file(size), 1_000, 10)).to eq([0, :eagain])
    StandInKernel.script(Errno::EAGAIN, after: 5)
    expect(described_class.copy(channel.out, payload_file(size), 1_000, 10)).to eq([5, :partial])
    StandInKernel.script(Errno::ENOTSUP, after: 0)
    expect(described_class.copy(channel.out, payload_file(size), 1_000, 10)).to eq([0, :unsupported])
  end

  it "never asks for 0 bytes, which would be all to the end of the file" do
    asked = StandInKernel.counted(:to_the_end) do
      waiters.product([0, 1, small, size - 5], [nil, head]).each do |waiter, length, head_given|
        channel = channel(:tcp)
        reader = channel.read
        expect(copy_under(waiter, channel.out, payload_file(size), 5, length, head: head_given)).to eq(length)
        channel.finish
        expect(reader.result).to be_payload(head_given.to_s.b + payload(size).byteslice(5, length))
      end
      expect(described_class.copy(channel(:tcp).out, payload_file(size), 7, 0)).to eq([0, :done])
    end
    expect(asked).to eq(0)
  end

  it "raises TimeoutError where nothing ever moves, and does not spin meanwhile" do
    waiters.each do |waiter|
      StandInKernel.script(Errno::EAGAIN, after: 0, times: 100_000)
      error = nil
      calls = StandInKernel.counted(:calls) { _, error = deliver(waiter, size, timeout: 0.3) }
      expect(error).to be_a(described_class::TimeoutError)
      expect(calls).to be < 100
    end
  end

  it "delivers every byte through what happens by chance" do
    seeds = Array.new(40) { rand(1..(1 << 60)) }
    seeds.product([small, 1_000_003]).each do |seed, length|
      StandInKernel.seed(seed)
      waiter = waiters.sample(random: Random.new(seed))
      received, said = deliver(waiter, length, head: head)
      expect(received).to be_payload(head.b + payload(length)), "seed #{seed}, waiter #{waiter}"
      expect(said).to eq(length)
    end
  end

  it "meets the end of the file like any other" do
    waiters.product([nil, head], [small, size]).each do |waiter, head_given, length|
      channel = channel(:tcp)
      reader = channel.read
      error = start_copy(waiter, channel.out, payload_file(length), 0, length + 1, head: head_given).error
      channel.finish
      expect(error).to be_a(described_class::TruncatedError)
      expect(error.bytes_sent).to eq(length)
      expect(reader.result).to be_payload(head_given.to_s.b + payload(length))
    end
  end
end
