# frozen_string_literal: true

# A descriptor closed by another thread midway: its number may be somebody else's at once, who must get no byte of
# ours, and whose bytes must not go out as ours.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "with a descriptor closed by another thread" do
  include Faults::Helpers

  huge = 1 << 30 # more than any reader takes in the time of an example
  size = 4_194_304
  routes = {
    sendfile: { kind: :tcp },
    splice: { kind: :tcp, splice: true },
    buffered: { kind: :tcp, nonblock: false },
    unix: { kind: :unix },
    pipe: { kind: :pipe },
    tls: { kind: :tls13, small: false },
    userspace: { kind: :tcp, source: :memory }
  }
  waiters = Waiters::ALL - %i[fiber_minimal] # which selects on a closed IO

  # What a number is reused for: [the one that may get the number, what tells whether something was written to it].
  reuses = {
    "a socket" => -> { UNIXSocket.pair },
    "a pipe" => -> { IO.pipe.reverse }
  }

  # Closes +io+ and has others take its number, as soon as it is free; returns those who would hear of bytes
  # written to it.
  define_method(:close_and_reuse) do |io, number, reuse|
    take_numbers_up_to(number)
    io.close
    pairs = []
    eventually("the number to be given to somebody else") do # without a guarded region the call leaves it first
      pairs.concat(Array.new(2) { reuse.call.each { |other| Cleanup.close(other) } })
      pairs.flatten.map(&:fileno).include?(number)
    end
    pairs
  end

  define_method(:expect_silence) do |pairs|
    pairs.flatten.each do |io|
      next if io.is_a?(IO) && !io.is_a?(BasicSocket) && pairs.map(&:first).include?(io) # a pipe's writing end

      expect(io.read_nonblock(1, exception: false)).to eq(:wait_readable)
    end
  end

  describe "the destination, in a wait" do
    routes.each do |route, options|
      waiters.each do |waiter|
        it "raises IOError at once (#{route}, #{waiter}), and writes nothing to what takes the number" do
          reuses.each_value do |reuse|
            prompt_within(0.2) do
              with_splice(options.fetch(:splice, false)) do
                channel = channel(options[:kind], small: options.fetch(:small, true),
                                                  nonblock: options.fetch(:nonblock, true))
                reader = channel.read(:stalled)
                source = options[:source] == :memory ? StringIO.new(payload(size)) : payload_file(size)
                source = sparse_file(huge) if options[:kind] == :tls13
                sender = start_copy(waiter, channel.out, source)
                await_backpressure(channel, sender)
                pairs = nil
                error = nil
                took = seconds do
                  pairs = close_and_reuse(channel.out, channel.wire.fileno, reuse)
                  error = sender.error
                end
                reader.go
                expect(error).to be_an(IOError).and(have_attributes(class: IOError))
                expect_silence(pairs)
                expect(error.bytes_sent).to eq(reader.wait.bytes)
                took
              ensure
                Cleanup.run # the numbers
              end
            end
          end
        end
      end
    end
  end

  describe "the destination, in a transfer to a reader that is always ready" do
    { sendfile: {}, splice: { splice: true }, buffered: { nonblock: false } }.each do |route, options|
      waiters.each do |waiter|
        it "raises IOError at once (#{route}, #{waiter}), the count right, and writes nothing to the new owner",
           needs: :another_ruby do
          prompt_within(0.2) do
            with_splice(options.fetch(:splice, false)) do
              totals = []
              channel = channel(:tcp, nonblock: options.fetch(:nonblock, true))
              reader = Faults::Discard.new(channel.peer)
              sender = start_copy(waiter, channel.out, sparse_file(huge)) { |sent| totals << sent }
              eventually("8 MiB to be on their way") { sender.done? || totals.last.to_i > 8 << 20 }
              pairs = error = nil
              took = seconds do
                pairs = close_and_reuse(channel.out, channel.wire.fileno, reuses["a socket"])
                error = sender.error
              end
              expect(error).to have_attributes(class: IOError)
              expect_silence(pairs)
              expect([error.bytes_sent, totals.last]).to eq([reader.bytes] * 2)
              took
            ensure
              Cleanup.run
            end
          end
        end
      end
    end

    { "TLS" => %i[tls13 thread], "TLS in a fiber" => %i[tls13 fiber_async], "a wrapper" => %i[wrapper thread] }
      .each do |what, (kind, waiter)|
      next unless Waiters::ALL.include?(waiter)

      it "raises IOError at once (#{what}), and writes nothing to what takes the number",
         needs: (:openssl if Channels::TLS.include?(kind)) do
        prompt_within(0.2) do
          totals = []
          channel = channel(kind)
          reader = channel.read
          sender = start_copy(waiter, channel.out, sparse_file(huge)) { |sent| totals << sent }
          eventually("1 MiB to be on its way") { sender.done? || totals.last.to_i > 1 << 20 }
          pairs = error = nil
          took = seconds do
            pairs = close_and_reuse(channel.out, channel.wire.fileno, reuses["a socket"])
            error = sender.error
          end
          expect(error).to have_attributes(class: IOError)
          expect_silence(pairs)
          expect(totals.last).to eq(reader.wait.bytes) unless kind == :wrapper # which may take a part before it raises
          took
        ensure
          Cleanup.run
        end
      end
    end
  end

  describe "the source" do
    other_byte = "\xff".b # in no file of zeros

    routes.except(:userspace).each do |route, options|
      (%i[thread fiber_async] & Waiters::ALL).each do |waiter|
        it "is not mixed up with the file that takes its number in a wait (#{route}, #{waiter})" do
          with_splice(options.fetch(:splice, false)) do
            region = options[:kind] == :tls13 ? 32 << 20 : 2_000_000
            channel = channel(options[:kind], small: options.fetch(:small, true),
                                              nonblock: options.fetch(:nonblock, true))
            reader = channel.read(:stalled)
            file = sparse_file(region)
            number = file.fileno
            sender = start_copy(waiter, channel.out, file)
            await_backpressure(channel, sender)

            path = Payload.write("other", other_byte * region)
            take_numbers_up_to(number)
            file.close
            # Nobody gets the number before the call is out of it. The collector may have freed a lower one since.
            others = Array.new(5) { Cleanup.close(File.open(path, "rb")) }
            reader.go
            error = sender.error
            channel.finish
            others += Array.new(95) { Cleanup.close(File.open(path, "rb")) }
            expect(others.map(&:fileno)).to include(number)

            expect(reader.result.index(other_byte)).to be_nil
            error ? expect(error).to(be_an(IOError)) : expect(reader.bytes).to(eq(region))
          end
        end
      end
    end

    # The file is closed after its number was looked up and before the system call reads from that number.
    {
      "a small body by sendfile" => [:sendfile, { size: 65_000 }],
      "a small body by memory" => [:pread, { size: 2_000 }],
      "a small body by sendfile, in a fiber" => [:sendfile, { size: 65_000, waiter: :fiber_async }],
      "sendfile" => [:sendfile, { size: 2_000_000 }],
      "sendfile in a fiber" => [:sendfile, { size: 2_000_000, waiter: :fiber_async }],
      "splice" => [:fill, { size: 2_000_000, splice: true }],
      "splice in a fiber" => [:fill, { size: 2_000_000, waiter: :fiber_async, splice: true }],
      "a buffered write" => [:pread, { size: 2_000_000, nonblock: false }],
      "a buffered write in a fiber" => [:pread, { size: 2_000_000, waiter: :fiber_async, nonblock: false }],
      "a small body by sendfile, and no number for a duplicate" => [:sendfile, { size: 65_000, none_left: true }],
      "a small body by memory, and no number for a duplicate" => [:pread, { size: 2_000, none_left: true }]
    }.each do |what, (call, options)|
      it "is not mixed up with a file that is opened just before the system call (#{what})", needs: :linux do
        report = Faults.run(:close_source_under, call, **options)
        expect(report).to include(fired: include(call => 1), closed: true)
        expect(report[:received]).to be_payload(payload(options[:size]).byteslice(0, report[:received].bytesize))
        expect(report[:error]).to(include(class: "IOError").or(be_nil))
      end
    end
  end

  # A file of a server is closed without the GVL.
  describe "a file that is closed beside others", needs: :extension do
    let(:native) { S.const_get(:Native) }

    it "is closed once, whoever else closes it, and no descriptor of others with it", if: RUBY_VERSION >= "3.2" do
      path = payload_file(10).path
      broken = Array.new(2_000) do |count|
        file = File.new(path)
        closers = [-> { native.close(file) }, count.even? ? -> { native.close(file) } : -> { file.close }]
        threads = closers.map { |closer| Thread.new(&closer) }
        Thread.pass until file.closed?
        File.open(File::NULL) do |other| # by the number that has become free, mostly
          threads.each(&:join)
          other.stat.chardev?
        end
      rescue Errno::EBADF
        false
      end.count(false)
      expect(broken).to eq(0)
    end

    it "may be closed already" do
      file = payload_file(10).tap(&:close)
      expect { 2.times { native.close(file) } }.not_to raise_error
    end

    it "leaves a descriptor alone that is not the file's own" do
      file = payload_file(10)
      guest = File.for_fd(file.fileno, autoclose: false)
      native.close(guest)
      expect(guest).to be_closed
      expect(file.pread(10, 0)).to eq(payload(10))
    end
  end
end
