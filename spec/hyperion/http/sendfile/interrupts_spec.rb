# frozen_string_literal: true

# Signals, Thread#kill, Thread#raise, Timeout and Async::Task#stop: answered at once in a wait and in a transfer; the
# bytes stay exact, the count stays right, nothing stays open.

require "spec_helper"
require "timeout"

RSpec.describe Hyperion::Http::Sendfile, "interrupted" do
  include Faults::Helpers

  huge = 1 << 30 # more than any reader takes in the time of an example
  stopped = Class.new(StandardError)

  # What can be interrupted: the route, and how to open a channel that takes it.
  routes = {
    sendfile: { kind: :tcp },
    splice: { kind: :tcp, splice: true },
    buffered: { kind: :tcp, nonblock: false },
    tls: { kind: :tls13, small: false } # or no record would fit
  }

  # How a thread is interrupted from outside, and what it ends with.
  interruptions = {
    "Thread#kill" => [->(sender) { sender.thread.kill }, nil],
    "Thread#raise" => [->(sender) { sender.thread.raise(stopped, "midway") }, stopped]
  }

  define_method(:start_huge) do |waiter, channel, totals|
    start_copy(waiter, channel.out, sparse_file(huge), 0, huge) { |sent| totals << sent }
  end

  # One try: interrupted once +midway+ returns. Returns the seconds until the sender had ended.
  define_method(:interrupt) do |waiter, with, midway:, kind:, nonblock: true, small: false, splice: false, &reader|
    with_splice(splice) do
      interruption, error = with
      totals = []
      channel = channel(kind, small: small, nonblock: nonblock)
      reading = reader.call(channel)
      sender = start_huge(waiter, channel, totals)
      midway.call(channel, sender, totals)
      took = seconds do
        interruption.call(sender)
        error ? expect { sender.value }.to(raise_error(error)) : sender.thread.join(10)
      end
      channel.finish
      got = reading.is_a?(Reader) ? reading.go.wait.bytes : reading.bytes
      expect(totals.last.to_i).to eq(got)
      took
    end
  end

  in_a_wait = lambda do |example|
    ->(channel, sender, _) { example.await_backpressure(channel, sender) }
  end

  in_a_transfer = lambda do |example|
    lambda do |_, sender, totals|
      example.eventually("8 MiB to be on their way") { sender.done? || totals.last.to_i > 8 << 20 }
    end
  end

  interruptions.each do |name, with|
    describe "by #{name}" do
      routes.each do |route, options|
        %i[thread blocking].each do |waiter|
          it "ends a wait of #{route} by #{waiter} at once, with the count right" do
            prompt_within(0.2) do
              interrupt(waiter, with, small: true, midway: in_a_wait.call(self), **options) do |channel|
                channel.read(:stalled)
              end
            end
          end
        end

        it "ends a transfer of #{route} to a reader that is always ready at once, with the count right" do
          prompt_within(0.2) do
            interrupt(:thread, with, midway: in_a_transfer.call(self), **options) do |channel|
              options[:kind] == :tcp ? Faults::Discard.new(channel.peer) : channel.read
            end
          end
        end
      end

      # Where the socket is never full, only the look at Ruby's wake-up between two system calls is left.
      { "with progress" => proc {}, "without" => nil }.each do |what, progress|
        it "ends a transfer to what never fills at once, #{what}" do
          prompt_within(0.5) do
            out = Cleanup.close(File.open(File::NULL, IO::WRONLY | IO::NONBLOCK))
            sender = start_copy(:thread, out, sparse_file(huge << 10), &progress)
            eventually("the transfer to run") { sender.asleep? }
            seconds do
              with.first.call(sender)
              sender.error
            end
          end
        end
      end

      it "leaves nothing open" do
        routes.each_value do |options|
          once = lambda do
            interrupt(:thread, with, small: true, midway: in_a_wait.call(self), **options) do |channel|
              channel.read(:stalled)
            end
            Cleanup.run
          end
          once.call # whatever is made once, is made now
          expect { 3.times { once.call } }.not_to leak_fds
        end
      end
    end
  end

  # The interruption comes while the system call has done its work and has not returned: its bytes are out.
  describe "inside a system call", needs: :linux do
    {
      "sendfile, waiting by thread" => [:sendfile, { waiter: :thread, size: 20_000_003 }],
      "sendfile, waiting by fiber" => [:sendfile, { waiter: :fiber_async }],
      "splice, waiting by thread" => [:drain, { waiter: :thread, splice: true }],
      "splice, waiting by fiber" => [:drain, { waiter: :fiber_async, splice: true }],
      "a buffered write, waiting by thread" => [:sendmsg, { waiter: :thread, nonblock: false }],
      "a buffered write, waiting by fiber" => [:sendmsg, { waiter: :fiber_async, nonblock: false }],
      "a small body by sendfile" => [:sendfile, { waiter: :thread, size: 60_000, skip: 0 }],
      "a small body by memory" => [:sendmsg, { waiter: :thread, size: 2_000, skip: 0 }]
    }.each do |what, (call, options)|
      it "counts the bytes of #{what}" do
        options = { size: 6_300_007, **options }
        report = Faults.run(:interrupt_in, call, **options)
        expect(report[:fired][call]).to eq(1)
        expect(report[:error]).to include(class: "Faults::Midway")
        expect(report[:received]).to be_payload(payload(options[:size]).byteslice(0, report[:received].bytesize))
        expect(report[:totals].last).to eq(report[:received].bytesize)
      end
    end

    # The method of OpenSSL that writes, by way of C and by way of Ruby.
    %i[syswrite_nonblock write_nonblock].each do |writes_by|
      [true, false].each do |told|
        it "counts the bytes of a TLS record that is out by #{writes_by}, #{told ? "with" : "without"} progress" do
          channel = channel(:tls13)
          reader = channel.read
          totals = []
          writes = 0
          sender = nil
          channel.out.define_singleton_method(writes_by) do |*arguments, **options|
            super(*arguments, **options).tap do
              Thread.new { sender.thread.raise(IOError, "midway") }.join if (writes += 1) == 5
            end
          end
          begun = Queue.new
          progress = ->(sent) { totals << sent } if told
          sender = start_under(:thread) do
            begun.pop
            S.copy_to_socket(channel.out, payload_file(1_000_003), &progress)
          end
          begun << true
          error = sender.error
          expect(error).to be_a(IOError).and have_attributes(message: "midway")
          channel.finish
          expect(writes).to be_between(5, 20)
          expect(error.bytes_sent).to eq(reader.wait.bytes)
          expect(totals.last).to eq(told ? error.bytes_sent : nil)
        end
      end
    end

    it "holds no record back, and gives Nagle's algorithm back, asking nothing of Ruby meanwhile" do
      channel = channel(:tls13)
      channel.read
      begun = false
      channel.wire.define_singleton_method(:closed?) { begun ? raise("an interrupt") : super() }
      sent = begin
        S.copy_to_socket(channel.out, payload_file(600_003)) { begun = true }
      ensure
        begun = false
      end
      expect(sent).to eq(600_003)
      expect(%i[CORK NODELAY].map { |name| channel.wire.getsockopt(:TCP, name).bool }).to eq([false, false])
    end

    it "counts the bytes of a small body that is not reported on" do
      channel = channel(:tcp)
      reader = channel.read
      allow(S).to receive(:copy_small).and_wrap_original do |original, *arguments, &block|
        original.call(*arguments, &block).tap do
          sender = Thread.current
          Thread.new { sender.raise(IOError, "midway") }.join
        end
      end
      file = payload_file(60_000)
      error = start_under(:thread) { S.copy_to_socket(channel.out, file, 0, 60_000, head: "head") }.error
      channel.finish
      expect(error).to be_a(IOError).and have_attributes(message: "midway")
      expect(error).to have_attributes(bytes_sent: 60_000, bytes_expected: 60_000)
      expect(reader.wait.bytes).to eq(60_004)
    end
  end

  describe "by Timeout.timeout" do
    define_method(:time_out) do |waiter, channel, totals|
      late = nil
      sender = start_under(waiter) do
        started = Eventually.now
        Timeout.timeout(0.3) do
          S.copy_to_socket(channel.out, sparse_file(huge), 0, huge) { |sent| totals << sent }
        end
      ensure
        late = Eventually.now - started - 0.3
      end
      expect { sender.value }.to raise_error(Timeout::Error)
      late
    end

    %i[thread fiber_async].product(%i[sendfile splice]).each do |waiter, route|
      it "ends a wait of #{route} by #{waiter} in time, with the count right" do
        prompt_within(0.2) do
          totals = []
          channel = channel(:tcp, small: true)
          reader = channel.read(:stalled)
          late = with_splice(route == :splice) { time_out(waiter, channel, totals) }
          channel.finish
          expect(totals.last.to_i).to eq(reader.go.wait.bytes)
          late
        end
      end

      it "ends a transfer of #{route} by #{waiter} in time, with the count right" do
        prompt_within(0.2) do
          totals = []
          channel = channel(:tcp)
          reader = Faults::Discard.new(channel.peer)
          late = with_splice(route == :splice) { time_out(waiter, channel, totals) }
          channel.finish
          expect(totals.last).to be > 0
          expect(totals.last).to eq(reader.bytes)
          late
        end
      end
    end
  end

  describe "by Async::Task#stop", needs: :schedulers do
    # Runs +stop+ in a task beside the transfer's; returns the seconds that stopping took.
    define_method(:stop_task) do |channel, totals, ready|
      took = nil
      start_under(:fiber_async) do
        task = Async { S.copy_to_socket(channel.out, sparse_file(huge), 0, huge) { |sent| totals << sent } }
        sleep 0.002 until ready.call
        took = seconds do
          task.stop
          task.wait
        end
        expect(task).to be_stopped
      end.value
      took
    end

    routes.each do |route, options|
      it "ends a wait of #{route} at once, with the count right and nothing open" do
        with_splice(options.fetch(:splice, false)) do
          try = lambda do
            totals = []
            channel = channel(options[:kind], small: options.fetch(:small, true),
                                              nonblock: options.fetch(:nonblock, true))
            reader = channel.read(:stalled)
            took = stop_task(channel, totals, -> { totals.any? && !channel.writable? })
            channel.finish
            expect(totals.last).to eq(reader.go.wait.bytes)
            took
          end
          try.call
          Cleanup.run
          expect do
            prompt_within(0.2, &try)
            Cleanup.run
          end.not_to leak_fds
        end
      end

      next unless options[:kind] == :tcp

      it "ends a transfer of #{route} to a reader that is always ready at once, with the count right" do
        with_splice(options.fetch(:splice, false)) do
          prompt_within(0.2) do
            totals = []
            channel = channel(:tcp, nonblock: options.fetch(:nonblock, true))
            reader = Faults::Discard.new(channel.peer)
            took = stop_task(channel, totals, -> { totals.last.to_i > 8 << 20 })
            channel.finish
            expect(totals.last).to eq(reader.bytes)
            took
          end
        end
      end
    end
  end

  it "leaves no pipe to the garbage collector, wherever in a splice the thread is killed", needs: :splice do
    channel = channel(:unix)
    drain = Thread.new { IO.copy_stream(channel.peer, File::NULL) }
    file = payload_file(70_000)
    send_it = -> { S.copy_to_socket(channel.out, file, 0, 70_000) }
    with_splice(true) do
      send_it.call
      GC.start
      GC.disable
      before = Dir.children("/proc/self/fd").size
      300.times do
        thread = Thread.new { loop { send_it.call } }
        sleep(rand / 1000)
        thread.kill.join
      end
      expect(Dir.children("/proc/self/fd").size).to eq(before)
    end
  ensure
    GC.enable
    drain&.kill&.join
  end

  describe "by signals" do
    # USR1 is handled by the block, for as long as the example lasts.
    define_method(:on_usr1) do |&handler|
      before = trap(:USR1, &handler)
      Cleanup.later { trap(:USR1, before) }
    end

    # A process that sends USR1 to this one without end.
    define_method(:storm) do
      pid = Process.spawn(RbConfig.ruby, "--disable-all", "-e", <<~RUBY, err: File::NULL)
        loop { Process.kill(:USR1, #{Process.pid}); sleep 0.0002 }
      RUBY
      Cleanup.later do
        Process.kill(:KILL, pid)
        Process.waitpid(pid)
      end
    end

    {
      "sendfile" => {}, "splice" => { splice: true }, "a buffered write" => { nonblock: false },
      "TLS" => { kind: :tls13 }, "a fiber" => { waiter: :fiber_async },
      "a fiber's splice" => { waiter: :fiber_async, splice: true }
    }.each do |what, options|
      it "sends every byte by #{what} in the main thread under a storm of them" do
        caught = 0
        on_usr1 { caught += 1 }
        storm
        eventually("the storm") { caught > 0 }

        channel = channel(options.fetch(:kind, :tcp), small: true, nonblock: options.fetch(:nonblock, true))
        reader = channel.read(:slow, slow_for: 600_000)
        caught = 0
        with_splice(options.fetch(:splice, false)) do
          send_it = -> { S.copy_to_socket(channel.out, payload_file(1_000_003)) }
          expect(options[:waiter] ? Sync { send_it.call } : send_it.call).to eq(1_000_003)
        end
        expect(caught).to be > 20
        channel.finish
        expect(reader.result).to be_payload(payload(1_000_003))
      end
    end

    it "keeps its timeout under a storm of them" do
      caught = 0
      on_usr1 { caught += 1 }
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      storm
      eventually("the storm") { caught > 0 }
      caught = 0
      error = nil
      took = seconds do
        S.copy_to_socket(channel.out, payload_file(1_000_003), timeout: 0.5)
      rescue S::TimeoutError => e
        error = e
      end
      expect(caught).to be > 20
      expect(took).to be_between(0.5, 0.5 + Eventually::LATE)
      channel.finish
      expect(error.bytes_sent).to eq(reader.go.wait.bytes)
    end

    it "sends every byte under a storm of wake-ups of the sending thread" do
      { thread: {}, blocking: { nonblock: false } }.each do |waiter, options|
        channel = channel(:tcp, small: true, **options)
        reader = channel.read(:slow, slow_for: 400_000)
        sender = start_copy(waiter, channel.out, payload_file(1_000_003))
        woken = 0
        until sender.done?
          sender.thread.wakeup if sender.asleep?
          woken += 1
          sleep 0.0002
        end
        expect(woken).to be > 20
        expect(sender.value).to eq(1_000_003)
        channel.finish
        expect(reader.result).to be_payload(payload(1_000_003))
      end
    end

    it "counts the bytes of a small body when a handler raises, with no other thread" do
      channel = channel(:unix)
      told = Faults.in_child do
        on_usr1 { raise IOError, "midway" }
        allow(S).to receive(:copy_small).and_wrap_original do |original, *arguments, &block|
          original.call(*arguments, &block).tap { Process.kill(:USR1, Process.pid) }
        end
        S.copy_to_socket(channel.out, payload_file(60_000), 0, 60_000, head: "head")
      rescue IOError => e
        [e.message, e.bytes_sent, e.bytes_expected]
      end
      expect(told).to eq(["midway", 60_000, 60_000])
    end

    it "runs a handler while the transfer waits" do
      handled = Queue.new
      on_usr1 { handled << true }
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      main = Thread.current
      helper = Thread.new do
        eventually("the main thread to wait") { main.status == "sleep" && !channel.writable? }
        Process.kill(:USR1, Process.pid)
        eventually("the handler to run") { !handled.empty? }
        reader.bytes.zero?
      ensure
        reader.go
      end
      S.copy_to_socket(channel.out, payload_file(1_000_003))
      expect(helper.value).to be(true)
    end

    # The native thread of one that has ended stays for seconds, and can take the wake-ups of Ruby's timer.
    it "runs a handler while the transfer runs, beside a thread that has ended" do
      longest = Faults.in_child do
        sent = nil
        on_usr1 { raise stopped }
        out = Cleanup.close(File.open(File::NULL, IO::WRONLY | IO::NONBLOCK))
        file = sparse_file(huge << 10)
        Array.new(4) do
          sender = Thread.new do
            sleep 0.05 # until the transfer runs
            sent = Eventually.now
            Process.kill(:USR1, Process.pid)
          end
          S.copy_to_socket(out, file)
        rescue stopped
          (Eventually.now - sent).tap { sender.join }
        end.max
      end
      expect(longest).to be < 2
    end

    {
      "a wait" => lambda do |example|
        example.channel(:tcp, small: true).tap { |channel| channel.read(:stalled) }.out
      end,
      "a transfer" => ->(_) { File.open(File::NULL, IO::WRONLY | IO::NONBLOCK) }
    }.each do |where, destination|
      it "ends #{where} in the main thread by SIGINT" do
        prompt_within(0.5) do
          ready, ready_w = IO.pipe.each { |io| Cleanup.close(io) }
          sent = nil
          interrupter = nil
          ended = Faults.in_child(started: lambda do |pid|
            interrupter = Thread.new do
              ready.read(1)
              eventually("the child to wait in C") do
                File.read("/proc/#{pid}/stat").split(")").last.split.first =~ /[SR]/
              end
              sleep 0.05 # from telling that it begins to being in it
              sent = Eventually.now
              Process.kill(:INT, pid)
            end
          end) do
            trap(:INT, "DEFAULT")
            out = destination.call(self)
            file = sparse_file(huge << 10)
            ready_w.write(".")
            S.copy_to_socket(out, file)
          rescue Interrupt
            Eventually.now
          end
          interrupter.join
          expect(ended).to be > sent
          ended - sent
        end
      end
    end
  end
end
