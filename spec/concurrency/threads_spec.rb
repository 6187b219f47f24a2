# frozen_string_literal: true

# Many threads that share a File, and do to each other what threads can do.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "in many threads" do
  size = 1_000_003
  threads = 24

  # Each sends a region of its own over a connection of its own; the block makes trouble meanwhile.
  def send_all(threads, size, file, kind: :tcp, waiter: :thread)
    runs = Array.new(threads) do |index|
      channel = channel(kind, small: index.odd?)
      reader = channel.read(:slow, slow_for: 20_000)
      { channel:, reader:, offset: index * 1_009,
        sender: start_copy(waiter, channel.out, file, index * 1_009, size - (index * 1_009), timeout: 20) }
    end
    yield runs if block_given?
    runs
  end

  def end_of(run)
    error = nil
    said = begin
      run[:sender].value
    rescue StandardError => e
      error = e
      nil
    end
    run[:channel].finish
    [said, error, run[:reader].result]
  end

  %i[tcp tls13].product(%i[thread fiber_async]).each do |kind, waiter|
    it "sends one File at once (#{kind}, #{waiter})" do
      send_all(threads, size, payload_file(size), kind:, waiter:).each do |run|
        said, error, received = end_of(run)
        expect([said, error]).to eq([size - run[:offset], nil])
        expect(received).to be_payload(payload(size).byteslice(run[:offset]..))
      end
    end
  end

  it "leaves the others alone when one closes its neighbour's connection" do
    runs = send_all(threads, size, payload_file(size)) do |all|
      closers = all.each_slice(3).map do |run, *|
        Thread.new { run[:reader].wait_for_bytes(20_000) && run[:channel].finish }
      end
      closers.each(&:join)
    end
    runs.each_with_index do |run, index|
      said, error, received = end_of(run)
      expected = payload(size).byteslice(run[:offset]..)
      if (index % 3).zero? && error
        expect(error).to be_a(IOError)
        expect(received).to be_payload(expected.byteslice(0, error.bytes_sent))
      else
        expect([said, error]).to eq([expected.bytesize, nil])
        expect(received).to be_payload(expected)
      end
    end
  end

  it "leaves the others alone when one kills its neighbour" do
    file = payload_file(size)
    runs = nil
    expect do
      runs = send_all(threads, size, file) do |all|
        all.each_slice(3) { |run, *| run[:reader].wait_for_bytes(20_000) && run[:sender].thread.kill }
      end
      runs.each_with_index do |run, index|
        said, error, received = end_of(run)
        expected = payload(size).byteslice(run[:offset]..)
        expect(error).to be_nil
        expect(said).to eq(expected.bytesize) unless (index % 3).zero?
        expect(received).to be_payload(expected.byteslice(0, said || received.bytesize))
      end
      Cleanup.run
    end.not_to leak_fds
  end

  it "goes on in the parent when a thread forks midway, and the child can send too" do
    file = payload_file(size)
    children = []
    runs = send_all(8, size, file) do |all|
      all.each { |run| run[:reader].wait_for_bytes(8_192) }
      children = Array.new(3) do |index|
        Thread.new do
          Faults.in_child do
            all.each { |run| run[:channel].wire.close } # the child's copies
            channel = channel(:tcp)
            reader = channel.read
            said = S.copy_to_socket(channel.out, file, index, size - index)
            channel.finish
            [said, reader.result == payload(size).byteslice(index..), S.stats[:responses].values.sum.positive?]
          end
        end
      end
      children.map!(&:value)
    end
    expect(children).to eq(Array.new(3) { |index| [size - index, true, true] })
    runs.each do |run|
      said, error, received = end_of(run)
      expect([said, error]).to eq([size - run[:offset], nil])
      expect(received).to be_payload(payload(size).byteslice(run[:offset]..))
    end
  end

  # The thread that would close them is not there.
  %i[copy_to_socket copy_data_frames].each do |name|
    it "leaves a child that another thread forks none of its own descriptors (#{name})" do
      file = payload_file(size)
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      options = name == :copy_data_frames ? { stream_id: 1 } : {}
      sender = start_under(:thread) { S.public_send(name, channel.out, file.fileno, 0, size, **options) }
      await_backpressure(channel, sender)
      opened = -> { Fds.table.values.count(file.path) }
      expect(opened.call).to eq(2)
      expect(Faults.in_child { opened.call }).to eq(1)
      expect(opened.call).to eq(2)
      reader.go
      expect(sender.value).to eq(size)
      expect(opened.call).to eq(1)
    end
  end

  # A number is sent by a duplicate; an IO does not close its own meanwhile.
  { fileno: ->(file) { Fds.table.values.count(file.path) == 2 }, itself: ->(file) { !file.autoclose? } }
    .each do |given, held|
    it "goes on in a child that its own thread forks midway, in a signal handler (given the file's #{given})" do
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      file = payload_file(size)
      in_the_fork = Faults.in_child do
        trap(:USR2) do
          if (fork = Process.fork)
            reader.go
            Process.wait(fork)
            raise Process.last_status.to_s.split.last(2).join(" ")
          end
        end
        Thread.new do
          eventually("the file to be held") { held.call(file) }
          Process.kill(:USR2, Process.pid)
          sleep
        end
        exit!(S.copy_to_socket(channel.out, file.public_send(given), 0, size) == size)
      rescue RuntimeError => e
        e.message
      end
      channel.finish
      expect(in_the_fork).to eq("exit 0")
      expect(reader.result).to be_payload(payload(size))
    end
  end
end
