# frozen_string_literal: true

require "rbconfig"
%w[backpressure channels cleanup eventually fds interposed payload reader waiters].each { |file| require_relative file }

# Faults made to order. Scenarios run in child processes: because a library that makes system calls fail is
# preloaded there (preload/faults.c), or because what they do (a mark for life, SIGINT) would stay with the suite.
module Faults
  # fill and drain are splice, by its direction; sendmsg is send as well, write writev, and poll ppoll; dup, getfl and
  # widen are commands of fcntl, queued is three of ioctl, sockopt is both getsockopt and setsockopt.
  CALLS = %i[sendfile fill drain pread sendmsg preadv2 write poll pipe dup getfl widen fstat queued advise
             sockopt].freeze
  ACTIONS = %i[pass fail shorten zero dawdle_before dawdle_after ready].freeze
  ALWAYS = -1

  # What one system call is to suffer: the first +skip+ calls of it pass, the next +times+ don't. With a +chance+, out
  # of 1000 of them as many don't, by the dice that +seed+ is for; and with +others+, [action, value] each, one of all
  # those befalls it.
  Rule = Struct.new(:action, :value, :skip, :times, :chance, :seed, :others) do
    def choices
      [[action, value], *others]
    end

    def to_s
      faults = choices.map { |action, value| [action, *value].join(" ") }.join(" or ")
      "#{faults}#{" by #{chance}/1000" if chance} #{times} times after #{skip}"
    end
  end

  # The file through which the preloaded library is told what to do, and tells what it did.
  class Control
    CHOICES = 10
    RULE = "l4Ql#{CHOICES * 2}l2".freeze
    RULE_BYTES = 24 + (CHOICES * 8) + 8
    WATCHED = 4
    WATCHED_AT = CALLS.size * RULE_BYTES
    ENTRIES_AT = WATCHED_AT + (WATCHED * 16) + 4
    JOURNAL_AT = ENTRIES_AT + 4
    ENTRY_BYTES = 24
    JOURNAL = 8_192
    # +action+ of a call that was left alone is :pass.
    Entry = Struct.new(:call, :flags, :result, :action)

    def self.create
      @created = @created.to_i + 1
      Payload.write("faults-#{@created}", "\0" * (JOURNAL_AT + (JOURNAL * ENTRY_BYTES)))
    end

    attr_reader :path

    def initialize(path)
      @path = path
    end

    # From now on calls on what +ios+ opened suffer +rules+, by call.
    def arm(rules, *ios)
      disarm
      rules.each { |call, rule| write(packed(rule), CALLS.index(call) * RULE_BYTES) }
      identities = ios.map { |io| io.stat.then { |stat| [stat.dev, stat.ino] } }
      raise "too much to watch" if identities.size > WATCHED

      write([*identities.flatten, *([0, 0] * (WATCHED - identities.size)), identities.size].pack("Q#{WATCHED * 2}l"),
            WATCHED_AT)
    end

    def disarm
      write("\0" * JOURNAL_AT, 0)
    end

    # Nothing suffers any more, and what dawdles goes on; what was journaled stays.
    def hold
      write([0].pack("l"), ENTRIES_AT - 4)
    end

    def close
      @file&.close
    end

    # Of those watched, since the last +arm+.
    def calls
      read(4, ENTRIES_AT).unpack1("l")
    end

    # How often each rule has fired.
    def fired
      CALLS.each_with_index.to_h do |call, index|
        [call, read(RULE_BYTES, index * RULE_BYTES).unpack(RULE).last]
      end
    end

    # The calls since the last +arm+, in order, with what they returned.
    def journal
      count = [calls, JOURNAL].min
      return [] if count.zero?

      read(count * ENTRY_BYTES, JOURNAL_AT).unpack("llqll" * count).each_slice(5).map do |call, flags, result, action|
        Entry.new(CALLS[call], flags, result, ACTIONS[action])
      end
    end

    private

    def packed(rule)
      choices = rule.choices.map { |action, value| [ACTIONS.index(action), value.to_i] }
      raise "too many choices" if choices.size > CHOICES

      [rule.skip, rule.times, rule.chance || 1000, choices.size, rule.seed || 0,
       *choices.flatten, *([0, 0] * (CHOICES - choices.size)), 0, 0].pack(RULE)
    end

    # Not by pread, which is among the calls that suffer, and from a descriptor that is open already.
    def read(length, offset)
      file.sysseek(offset)
      file.sysread(length)
    end

    def write(bytes, offset)
      file.sysseek(offset)
      file.syswrite(bytes)
    end

    def file
      @file ||= File.open(@path, "r+b")
    end
  end

  class Midway < StandardError; end

  # What came of a scenario; everything in it can cross a pipe.
  Outcome = Struct.new(:value, :error, keyword_init: true) do
    def value!
      error ? raise(error) : value
    end
  end

  class << self
    # Runs the block in a fork; returns its value, or raises what it raised. The pid goes to +started+.
    def in_child(limit: 20, started: nil, &block)
      report, report_w = IO.pipe
      pid = fork { report_from_child(report_w, &block) }
      report_w.close
      started&.call(pid)
      raise Eventually::NeverHappened, "child not done within #{limit} s" unless report.wait_readable(limit)

      Marshal.load(report.read).value! # rubocop:disable Security/MarshalLoad -- our own child
    ensure
      report&.close
      reap(pid) if pid
    end

    # Runs Scenarios.name(...) in a child with the preloaded library.
    def run(name, *positional, **arguments)
      @preloaded = Preloaded.new unless @preloaded&.alive?
      @preloaded.run(name, *positional, **arguments)
    end

    def report_from_child(report)
      outcome =
        begin
          Outcome.new(value: yield)
        rescue Exception => e # rubocop:disable Lint/RescueException -- the parent raises it
          trace = e.backtrace&.first(8)&.join("\n")
          Outcome.new(error: RuntimeError.new("in a child: #{e.class}: #{e.message}\n#{trace}"))
        end
      report.write(Marshal.dump(outcome))
      report.close
    ensure
      exit!(true) # no at_exit handler of the suite's
    end

    private

    def reap(pid)
      Process.kill(:KILL, pid)
      Process.waitpid(pid)
    end
  end

  # A process that has the library preloaded and the support code loaded, and forks for what it is asked to do.
  class Preloaded
    SOURCE = File.join(__dir__, "preload", "faults.c")
    LIBRARY = File.expand_path("../..", File.dirname(S.method(:copy_to_socket).source_location.first))
    LOAD_PATH = [LIBRARY, File.expand_path("..", __dir__)].freeze

    COMPILING = Mutex.new

    class << self
      attr_accessor :compiled
    end

    # +server+ is what the process runs, with where its requests come from, where its answers go, and the Control.
    def initialize(server = "Faults::Preloaded.serve")
      requests_r, @requests = IO.pipe
      @answers, answers_w = IO.pipe
      @pid = spawn(server, requests_r, answers_w)
      [requests_r, answers_w].each(&:close)
      owner = Process.pid
      at_exit { stop if Process.pid == owner }
    end

    # If the wait is ended from outside, by the watchdog say, the process goes: what it answers later would be taken for
    # the answer to the next request.
    def run(name, *positional, **arguments)
      request([name, positional, arguments])
      outcome = answer
      outcome.value!
    ensure
      kill unless outcome
    end

    def request(request)
      Marshal.dump(request, @requests)
    end

    def answer(limit = nil)
      raise Eventually::NeverHappened, "no answer within #{limit} s" unless limit.nil? || @answers.wait_readable(limit)

      Marshal.load(@answers) # rubocop:disable Security/MarshalLoad -- our own child
    end

    def alive?
      !@requests.closed?
    end

    # It ends by itself when there are no more requests.
    def stop
      return unless alive?

      @requests.close
      @answers.close
      Process.waitpid(@pid)
    end

    # With what it has forked.
    def kill
      Process.kill(:KILL, -@pid)
      stop
    end

    # In the process itself: its standard input and output are the two pipes.
    def self.enter
      raise "the library is not loaded" unless File.read("/proc/self/maps").include?("/faults.so")

      requests = $stdin.dup
      answers = $stdout.dup.tap { |io| io.sync = true }
      $stdout.reopen($stderr)
      yield requests, answers, Control.new(ENV.fetch("FAULTS"))
    end

    def self.serve(requests, answers, control)
      loop do
        name, positional, arguments = Marshal.load(requests) # rubocop:disable Security/MarshalLoad -- our own parent
        Marshal.dump(outcome(control, name, positional, arguments), answers)
      end
    rescue EOFError
      nil
    end

    def self.outcome(control, name, positional, arguments)
      Outcome.new(value: Faults.in_child { Scenarios.new(control).public_send(name, *positional, **arguments) })
    rescue StandardError => e
      Outcome.new(error: RuntimeError.new(e.message))
    ensure
      control.hold
    end
    private_class_method :outcome

    private

    def spawn(server, requests, answers)
      environment = { "LD_PRELOAD" => Interposed.behind(library), "FAULTS" => Control.create,
                      "HYPERION_HTTP_SPLICE" => nil }
      Process.spawn(environment, RbConfig.ruby, *LOAD_PATH.map { |path| "-I#{path}" }, "-e",
                    "require 'spec_helper'; Faults::Preloaded.enter { |*streams| #{server}(*streams) }",
                    in: requests, out: answers, pgroup: true)
    end

    def library
      COMPILING.synchronize do
        Preloaded.compiled ||= File.join(Payload.dir, "faults.so").tap do |path|
          compiler = RbConfig::CONFIG["CC"].split
          flags = %w[-std=gnu11 -Wall -Wextra -Werror -O1 -shared -fPIC]
          raise "can't compile #{SOURCE}" unless system(*compiler, *flags, "-o", path, SOURCE, "-ldl")
        end
      end
    end
  end

  # What can be run in the child.
  class Scenarios
    # Milliseconds that a call dawdles at most while something else is brought about, which then ends it.
    PATIENCE = 5_000
    # Milliseconds after which Ruby wants a thread to let others run.
    TIME_SLICE = 100

    include Eventually
    include Payload
    include Channels
    include Waiters
    include Backpressure

    def initialize(control)
      @control = control
    end

    # One transfer that suffers +faults+ (rules by call); +slow+ makes the socket fill up first.
    def deliver(size:, faults:, kind: :tcp, waiter: :thread, splice: false, slow: false, small: true, source: nil,
                nonblock: true, keep_gvl: false, **options)
      enable_splice(splice)
      S.keep_gvl = keep_gvl
      totals = []
      channel = channel(kind, small: small || slow, nonblock: nonblock)
      reader = channel.read(slow ? :stalled : :greedy)
      source ||= payload_file(size)
      arm(faults, channel, source)
      sender = start_copy(waiter, channel.out, source, 0, size, **options) do |sent|
        totals << sent
      end
      if slow
        await_backpressure(channel, sender)
        reader.go(:slow)
      end
      said, error = outcome(sender)
      report(said: said, error: error, totals: totals, received: received_over(channel, reader))
    end

    # A transfer in a fiber beside one that only counts its turns. The file is cold: the kernel says once that
    # a read of it would have to wait (EAGAIN) or does not say (another errno), and the next read takes so many turns,
    # or +disk+ ms if they don't come.
    def beside_a_heartbeat(size:, waiter:, disk:, turns: 5, head: nil, refusals: 1, refusal: Errno::EAGAIN, **options)
      channel = channel(:tcp)
      reader = channel.read
      file = payload_file(size)
      arm({ preadv2: Rule.new(:fail, refusal::Errno, 0, refusals), pread: Rule.new(:dawdle_before, disk, 0, 1) },
          channel, file)
      beats = 0
      said, error = attempt do
        run_under(waiter) do
          beside_heartbeat(-> { @control.hold if reading? && (beats += 1) == turns }) do
            S.copy_to_socket(channel.out, file, 0, size, head: head, **options)
          end
        end
      end
      report(said: said, error: error, beats: beats, received: received_over(channel, reader))
    end

    # A file is read in, and Ruby wants its thread to take turns with another just before.
    def read_in_out_of_turn(size:)
      file = payload_file(size)
      arm({ dup: Rule.new(:dawdle_before, 3 * TIME_SLICE, 0, 1) }, nil, file)
      other = Thread.new { loop { Thread.pass } }
      S.const_get(:Native).read_in(file.fileno, 0, size) # by a duplicate
      report
    ensure
      other&.kill&.join
    end

    # The counters after one transfer that suffers +faults+, in a process that has made no other.
    def counted(size:, faults:)
      channel = channel(:tcp)
      reader = channel.read
      file = payload_file(size)
      arm(faults, channel, file)
      S.copy_to_socket(channel.out, file, 0, size)
      received_over(channel, reader)
      S.stats
    end

    # A transfer where sendfile is switched off, and where it and splice fail if they are called all the same; with
    # +frames+, of DATA frames of that size.
    def without_sendfile(size:, waiter:, kind:, head: nil, frames: nil)
      S.sendfile_enabled = false
      enable_splice(true)
      channel = channel(kind)
      reader = channel.read
      file = payload_file(size)
      arm(%i[sendfile fill drain].to_h { |call| [call, Rule.new(:fail, Errno::EIO::Errno, 0, ALWAYS)] }, channel, file)
      before = S.stats
      sender = start_under(waiter) do
        next S.copy_to_socket(channel.out, file, 0, size, head: head) unless frames

        S.copy_data_frames(channel.out, file, 0, size, stream_id: 1, max_frame_size: frames, head: head)
      end
      said, error = outcome(sender)
      routes = S.stats[:responses].reject { |route, count| count == before[:responses][route] }.keys
      fallbacks = S.stats[:fallbacks] - before[:fallbacks]
      report(said: said, error: error, routes: routes, fallbacks: fallbacks, received: received_over(channel, reader))
    ensure
      S.sendfile_enabled = true
    end

    # One call of a primitive that suffers +faults+, to a socket that takes it all.
    def primitive(name:, size:, faults:, kind: :tcp)
      channel = channel(kind)
      reader = channel.read
      file = payload_file(size)
      pipes = name == :copy_splice_into_pipe ? IO.pipe : []
      arm(faults, channel, file)
      said, error = attempt { S.public_send(name, channel.out, file, 0, size, *pipes) }
      report(said: said, error: error, received: received_over(channel, reader))
    end

    # The source is closed, and its number free for another file, between the look-up of the number and the
    # system call that uses it; +none_left+: it is given as a number, and there is none for a duplicate.
    def close_source_under(call, size:, waiter: :thread, nonblock: true, splice: false, none_left: false)
      enable_splice(splice)
      channel = channel(:tcp, nonblock: nonblock)
      reader = channel.read
      file = payload_file(size)
      number = file.fileno
      other_path = Payload.write("other", "\xff".b * size)
      arm({ call => Rule.new(:dawdle_before, PATIENCE, 0, 1) }, channel, file)
      take_all_numbers if none_left
      sender = start_copy(waiter, channel.out, none_left ? number : file, 0, size)
      eventually("#{call} to be called") { @control.fired[call] == 1 }
      file.close
      other = Cleanup.close(File.open(other_path, "rb"))
      @control.hold
      _, error = outcome(sender)
      closed = other.fileno == number || !File.exist?("/proc/self/fd/#{number}")
      report(error: error, closed: closed, received: received_over(channel, reader))
    end

    # The sender's thread is raised at while the one after +skip+ calls has done its work and not returned yet.
    def interrupt_in(call, size:, waiter:, skip: 1, splice: false, nonblock: true)
      enable_splice(splice)
      totals = []
      channel = channel(:tcp, nonblock: nonblock)
      reader = channel.read
      file = payload_file(size)
      arm({ call => Rule.new(:dawdle_after, PATIENCE, skip, 1) }, channel, file)
      sender = start_copy(waiter, channel.out, file, 0, size) { |sent| totals << sent }
      eventually("#{call} to be called") { @control.fired[call] == 1 }
      sender.thread.raise(Midway, "midway")
      @control.hold
      _, error = outcome(sender)
      report(error: error, totals: totals, received: received_over(channel, reader))
    end

    private

    def arm(faults, channel, source)
      @control.arm(faults, *[channel&.wire, source].grep(IO))
    end

    def reading?
      @control.fired[:pread] == 1
    end

    # Beside the block another fiber tells of every turn that it gets.
    def beside_heartbeat(tell)
      done = false
      Fiber.schedule do
        until done
          sleep 0.005
          tell.call
        end
      end
      yield
    ensure
      done = true
    end

    def take_all_numbers
      Process.setrlimit(:NOFILE, Fds.open.keys.max + 4, Process.getrlimit(:NOFILE).last)
      loop { Cleanup.close(File.open(File::NULL)) }
    rescue Errno::EMFILE
      nil
    end

    def enable_splice(on)
      ENV["HYPERION_HTTP_SPLICE"] = on ? "1" : nil
    end

    def outcome(sender)
      attempt { sender.value(within: 15) }
    end

    def attempt
      [yield, nil]
    rescue Eventually::NeverHappened
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- it is the outcome
      counts = { sent: e.bytes_sent, expected: e.bytes_expected } if e.respond_to?(:bytes_sent)
      [nil, { class: e.class.name, message: e.message, **counts.to_h }]
    end

    def received_over(channel, reader)
      channel.finish
      reader.result
    end

    def report(**facts)
      ENV["HYPERION_HTTP_SPLICE"] = "1"
      { fired: @control.fired, journal: @control.journal, splice: S.splice_runtime_supported?, **facts }
    end
  end

  # A TCP reader that is always ready: a process that has the kernel throw the bytes away, and counts them.
  class Discard
    CODE = <<~RUBY
      socket = Socket.for_fd(3)
      count = 0
      buffer = String.new
      begin
        count += buffer.bytesize until socket.recv(1 << 20, 0x20, buffer).to_s.tap { $stdout.write(".") if count.zero? }.empty?
      rescue SystemCallError
        nil
      end
      puts count
    RUBY

    # Takes +io+ over: it is closed here.
    def initialize(io)
      @report, report_w = IO.pipe.each { |pipe| Cleanup.close(pipe) }
      @pid = Process.spawn(RbConfig.ruby, "--disable-all", "-rsocket", "-e", CODE, 3 => io, out: report_w)
      report_w.close
      io.close
      Cleanup.later { reap }
    end

    # Bytes received until the end of the stream.
    def bytes
      @bytes ||= @report.read.delete(".").to_i
    end

    private

    def reap
      Process.kill(:KILL, @pid)
      Process.waitpid(@pid)
    end
  end

  module Helpers
    # The best of three: what is prompt can be late once on a busy machine, what is not never is in time. The block
    # is one whole try, and returns the seconds.
    def prompt_within(limit)
      tries = []
      tries << yield until tries.size == 3 || (tries.last && tries.last < limit)
      expect(tries.last).to be < limit, "took #{tries.map { |seconds| seconds.round(3) }} s"
    end

    def with_splice(enabled = true) # rubocop:disable Style/OptionalBooleanParameter -- reads better at every use
      saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
      ENV["HYPERION_HTTP_SPLICE"] = enabled ? "1" : nil
      yield
    ensure
      ENV["HYPERION_HTTP_SPLICE"] = saved
    end

    # All zeros, and nothing on the disk.
    def sparse_file(size)
      path = File.join(Payload.dir, "sparse-#{size}")
      File.open(path, "wb") { |file| file.truncate(size) } unless File.exist?(path)
      Cleanup.close(File.open(path, "rb"))
    end

    # Leaves no free descriptor number up to +number+, so that it is known what the next one opened will get.
    def take_numbers_up_to(number)
      loop do
        io = Cleanup.close(File.open(File::NULL))
        break if io.fileno > number
      end
    end
  end
end

%w[plan trial campaign].each { |file| require_relative "faults/#{file}" }
