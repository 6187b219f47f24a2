# frozen_string_literal: true

# Descriptors as the caller's property: high numbers, none left, none kept, given as Integers, and O_NONBLOCK as it was.

require "spec_helper"
require "timeout"

RSpec.describe Hyperion::Http::Sendfile, "and its descriptors" do
  include Faults::Helpers

  size = 300_007
  head = "HTTP/1.1 200 OK\r\n\r\n"
  routes = {
    small: { kind: :tcp, size: 60_000 },
    sendfile: { kind: :tcp },
    splice: { kind: :tcp, splice: true },
    buffered: { kind: :tcp, nonblock: false },
    unix: { kind: :unix },
    pipe: { kind: :pipe },
    "blocking pipe": { kind: :pipe, nonblock: false },
    tls: { kind: :tls13 },
    wrapper: { kind: :wrapper },
    userspace: { kind: :tcp, source: :memory }
  }
  waiters = %i[thread blocking fiber_async]

  define_method(:open_route) do |kind:, nonblock: true, size: 300_007, source: nil, **|
    file = source == :memory ? StringIO.new(payload(size)) : payload_file(size)
    [channel(kind, small: true, nonblock: nonblock), file, size]
  end

  # Through a full socket, and back: what waits is in it.
  define_method(:deliver) do |waiter, channel, file, size, **options|
    reader = channel.read(:slow, slow_for: 20_000)
    sender = start_copy(waiter, channel.out, file, 0, size, **options)
    expect(sender.value).to eq(size)
    channel.finish
    channel.decode(reader.result)
  end

  describe "numbers of 1024 and above" do
    before do
      soft, hard = Process.getrlimit(:NOFILE)
      Cleanup.later { Process.setrlimit(:NOFILE, soft, hard) }
      Process.setrlimit(:NOFILE, [4_096, hard].min, hard) if soft < 4_096
      take_numbers_up_to(1_100)
    end

    routes.each do |route, options|
      [*waiters, :fiber_minimal].each do |waiter|
        it "are sent from and to (#{route}, #{waiter})" do
          with_splice(options.fetch(:splice, false)) do
            channel, file, bytes = open_route(**options)
            expect([channel.wire.fileno, *(file.fileno unless file.is_a?(StringIO))]).to all(be > 1_100)
            expect(deliver(waiter, channel, file, bytes, head: head)).to be_payload(head.b + payload(bytes))
          end
        end
      end
    end
  end

  describe "where none is left" do
    # No descriptor can be opened while the block runs.
    define_method(:with_none_left) do |&block|
      soft, hard = Process.getrlimit(:NOFILE)
      Process.setrlimit(:NOFILE, Fds.open.keys.max + 4, hard)
      taken = []
      begin
        loop { taken << File.open(File::NULL) }
      rescue Errno::EMFILE
        block.call
      end
    ensure
      Process.setrlimit(:NOFILE, soft, hard)
      taken.each(&:close)
    end

    routes.each do |route, options|
      waiters.each do |waiter|
        it "sends every byte all the same (#{route}, #{waiter})" do
          with_splice(options.fetch(:splice, false)) do
            deliver(waiter, *open_route(**options), head: head) # whatever is opened once, is opened now
            channel, file, bytes = open_route(**options)
            reader = channel.read(:slow, slow_for: 20_000)
            pipes = observe_pipes if options[:splice]
            ready = none_left = false
            sender = start_under(waiter) do
              ready = true # the scheduler has its own
              sleep(0.001) until none_left
              name = waiter == :blocking ? :copy_to_socket_blocking : :copy_to_socket
              S.public_send(name, channel.out, file, 0, bytes,
                            head: head)
            end
            eventually { ready }
            with_none_left do
              none_left = true
              expect(sender.value).to eq(bytes)
            end
            channel.finish
            expect(channel.decode(reader.result)).to be_payload(head.b + payload(bytes))
            expect(pipes.to_a).to be_empty
            expect(S.splice_runtime_supported?).to be(true) if options[:splice]
          end
        end
      end
    end

    it "makes copy_splice :unsupported, and marks nothing" do
      with_splice do
        channel = channel(:tcp)
        reader = channel.read
        file = payload_file(size)
        with_none_left { expect(S.copy_splice(channel.out, file, 0, size)).to eq([0, :unsupported]) }
        expect(S.splice_runtime_supported?).to be(true)
        expect(S.copy_splice(channel.out, file, 0, 4_096)).to eq([4_096, :done])
        channel.finish
        expect(reader.result).to be_payload(payload(size).byteslice(0, 4_096))
      end
    end
  end

  describe "as Integers" do
    { sendfile: {}, splice: { splice: true }, buffered: { nonblock: false } }.each do |route, options|
      waiters.each do |waiter|
        it "are sent from and to, and stay open (#{route}, #{waiter})" do
          with_splice(options.fetch(:splice, false)) do
            [60_000, size].each do |size|
              channel = channel(:tcp, small: true, nonblock: options.fetch(:nonblock, true))
              reader = channel.read(:slow, slow_for: 40_000)
              file = payload_file(size)
              said = copy_under(waiter, channel.wire.fileno, file.fileno, 0, size, head: head)
              GC.start
              expect(said).to eq(size)
              expect(file.pread(1, 0)).to eq(payload(size)[0])
              channel.wire.write("more")
              channel.finish
              expect(reader.result).to be_payload("#{head.b}#{payload(size)}more".b)
            end
          end
        end
      end
    end

    it "are taken by the primitives" do
      file = payload_file(size)
      pipe = IO.pipe.each { |io| Cleanup.close(io) }
      { copy: [], copy_small: [], copy_splice: [], copy_splice_into_pipe: pipe.map(&:fileno) }.each do |name, pipes|
        channel = channel(:tcp)
        reader = channel.read
        expect(S.public_send(name, channel.wire.fileno, file.fileno, 5, 1_000, *pipes))
          .to eq(name == :copy_small ? 1_000 : [1_000, :done])
        channel.finish
        expect(reader.result).to be_payload(payload(size).byteslice(5, 1_000))
      end
    end
  end

  describe "and O_NONBLOCK" do
    %i[tcp unix pipe].product([true, false], [true, false]).each do |kind, nonblock, splice|
      waiters.each do |waiter|
        it "stays #{nonblock ? "set" : "clear"} (#{kind}, #{waiter}, splice: #{splice})" do
          with_splice(splice) do
            channel = channel(kind, small: true, nonblock: nonblock)
            reader = channel.read(:stalled)
            sender = start_copy(waiter, channel.out, payload_file(size), head: head)
            await_backpressure(channel, sender)
            expect(channel.wire.nonblock?).to be(nonblock)
            reader.go
            sender.value
            expect(channel.wire.nonblock?).to be(nonblock)
          end
        end
      end
    end
  end

  describe "in blocking mode, under a scheduler", needs: :schedulers do
    %i[tcp unix pipe].product(%i[fiber_async fiber_minimal], [true, false]).each do |kind, waiter, splice|
      it "do not park the event loop (#{kind}, #{waiter}, splice: #{splice})" do
        with_splice(splice) do
          channel = channel(kind, small: true, nonblock: false)
          reader = channel.read(:stalled)
          start_under(waiter) do
            Fiber.schedule do
              8.times { sleep 0.01 }
              reader.go # which a loop that is parked never comes to
            end
            S.copy_to_socket(channel.out, payload_file(size), timeout: nil)
          end.value
          channel.finish
          expect(reader.result).to be_payload(payload(size))
        end
      end

      it "are timed (#{kind}, #{waiter}, splice: #{splice})" do
        with_splice(splice) do
          channel = channel(kind, small: true, nonblock: false)
          reader = channel.read(:stalled)
          sending = start_under(waiter) { S.copy_to_socket(channel.out, payload_file(size), timeout: 0.1) }
          expect { sending.value }.to raise_error(S::TimeoutError) { |error|
            channel.finish
            expect(error).to have_attributes(bytes_sent: reader.go.wait.bytes, bytes_expected: size)
          }
        end
      end
    end
  end

  describe "in blocking mode and full" do
    {
      copy: [[0, :eagain]], copy_small: [0], copy_splice: [[0, :unsupported], [0, :eagain]],
      copy_splice_into_pipe: [[0, :unsupported], [0, :eagain]]
    }.each do |name, answers|
      %i[tcp unix pipe].each do |kind|
        it "make #{name} return at once (#{kind})" do
          channel = channel(kind, small: true)
          file = payload_file(60_000)
          nil until channel.out.write_nonblock("x" * 1_000, exception: false) == :wait_writable
          nil until channel.out.write_nonblock("x", exception: false) == :wait_writable
          channel.wire.nonblock = false
          pipes = name == :copy_splice_into_pipe ? IO.pipe.each { |io| Cleanup.close(io) } : []
          answer = Timeout.timeout(5) { S.public_send(name, channel.out, file, 0, 60_000, *pipes) }
          expect(answers).to include(answer)
          expect(channel.wire.nonblock?).to be(false)
        end
      end
    end

    # The first bytes fit, the rest does not.
    it "make them return at once midway" do
      %i[tcp unix pipe].product(%i[copy copy_small]).each do |kind, name|
        channel = channel(kind, small: true, nonblock: false)
        length = name == :copy ? size : 60_000
        length = 65_536 if kind == :unix && name == :copy_small
        channel.wire.setsockopt(:SOCKET, :SNDBUF, 1_024) if kind == :unix
        sent, status = Timeout.timeout(5) { S.public_send(name, channel.out, payload_file(size), 0, length) }
        expect(sent).to be_between(1, length - 1)
        expect(status).to eq(:partial) if name == :copy
        channel.wire.close
        expect(channel.read.wait.bytes).to eq(sent)
      end
    end
  end

  describe "after 1,000 transfers and 200 failures" do
    transfers = lambda do |example, count|
      large = example.payload_file(size)
      count.times do |index|
        options = routes.values[index % routes.size]
        channel = example.channel(options[:kind], nonblock: options.fetch(:nonblock, true))
        bytes = index.even? ? 1_500 : 70_000
        reader = channel.read
        waiter = index % 50 == 1 ? :fiber_async : :thread
        example.with_splice(options.fetch(:splice, false)) { example.copy_under(waiter, channel.out, large, 7, bytes) }
        channel.finish
        reader.wait
        Cleanup.run if index % 20 == 19
        large = example.payload_file(size) if large.closed?
      end
    end

    failures = {
      truncated: lambda { |e, out, _|
        e.expect do
          S.copy_to_socket(out, e.payload_file(size), 10, size)
        end.to e.raise_error(S::TruncatedError)
      },
      truncated_early: lambda { |e, out, _|
        e.expect do
          S.copy_to_socket(out, e.payload_file(1_500), 2_000, 9)
        end.to e.raise_error(S::TruncatedError)
      },
      stalled: lambda do |e, out, _|
        e.expect { S.copy_to_socket(out, e.sparse_file(1 << 30), timeout: 0.01) }.to e.raise_error(S::TimeoutError)
      end,
      gone: lambda do |e, out, peer|
        peer.close
        e.expect { S.copy_to_socket(out, e.sparse_file(1 << 30)) }.to e.raise_error(SystemCallError)
      end,
      negative: lambda { |e, out, _|
        e.expect do
          S.copy_to_socket(out, e.payload_file(size), -1)
        end.to e.raise_error(ArgumentError)
      },
      no_file: ->(e, out, _) { e.expect { S.copy_to_socket(out, Object.new) }.to e.raise_error(TypeError) },
      closed: lambda do |e, out, _|
        out.close
        e.expect { S.copy_to_socket(out, e.payload_file(size)) }.to e.raise_error(IOError)
      end,
      directory: lambda do |e, out, _|
        e.expect { File.open("/") { |dir| S.copy_to_socket(out, dir, 0, size) } }.to e.raise_error(Errno::EISDIR)
      end,
      primitive: lambda { |e, out, _|
        e.expect do
          S.copy_splice(out, e.payload_file(size), 0, -1)
        end.to e.raise_error(ArgumentError)
      },
      killed: lambda do |e, out, _|
        file = e.sparse_file(1 << 30)
        Thread.new { S.copy_to_socket(out, file) }.tap { |thread| Thread.pass until thread.stop? }.kill.join
      end,
      block_raised: lambda { |e, out, _|
        e.expect do
          S.copy_to_socket(out, e.payload_file(size)) do
            raise IndexError
          end
        end.to e.raise_error(IndexError)
      }
    }

    it "as many are open as before" do
      transfers.call(self, 60) # whatever is made once, is made now
      Cleanup.run
      expect do
        transfers.call(self, 1_000)
        Cleanup.run
      end.not_to leak_fds
    end

    failures.each_key do |kind|
      [false, true].each do |splice|
        it "none is left behind by the failure (#{kind}, splice: #{splice})" do
          once = lambda do
            with_splice(splice) do
              channel = channel(:tcp)
              failures[kind].call(self, channel.out, channel.peer)
            ensure
              Cleanup.run
            end
          end
          once.call
          GC.disable # which would close what was forgotten
          before = Dir.children("/proc/self/fd").size
          10.times { once.call }
          expect(Dir.children("/proc/self/fd").size).to be <= before
        ensure
          GC.enable
        end
      end
    end
  end
end
