# frozen_string_literal: true

# The contract of the façade: which primitives it calls, where the bytes go, what it returns and what it tells the
# block.

require "spec_helper"
require "delegate"
require "open3"
require "rbconfig"
require "tempfile"

module Facade
  # Leads to a socket in every way there is, and writes elsewhere.
  class Diverted
    attr_reader :to_io, :written

    def initialize(io)
      @to_io = io
      @written = +"".b
    end

    def write(*strings)
      strings.sum do |string|
        @written << string.b
        string.bytesize
      end
    end

    def write_nonblock(*)
      raise "only write is this object's own"
    end

    %i[fileno sync closed? flush wait_writable].each do |name|
      define_method(name) { |*arguments| @to_io.public_send(name, *arguments) }
    end
  end

  # The same by the standard library's delegation, which passes on everything but `write`.
  class Delegated < SimpleDelegator
    def written
      @written ||= +"".b
    end

    def to_io
      __getobj__
    end

    def write(*strings)
      strings.each { |string| written << string.b }.sum(&:bytesize)
    end
  end

  # Answers from +string+ through the one method it was given, never more than +most+ bytes.
  def self.source(string, name, most: 1_000_000, same_buffer: true)
    position = 0
    Object.new.tap do |source|
      source.define_singleton_method(name) do |length, *rest|
        buffer = rest.pop
        at = name == :pread ? rest.first : position
        data = string.byteslice(at, [length, most].min)
        position = at + data.to_s.bytesize
        next (name == :read ? nil : raise(EOFError)) if data.nil? || data.empty?

        same_buffer ? buffer.replace(data) : data
      end
    end
  end
end

RSpec.describe Hyperion::Http::Sendfile do
  let(:large) { 1_000_003 }
  let(:bytes) { payload(large) }
  let(:file) { payload_file(large) }

  def with_splice(value = "1")
    saved = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
    ENV["HYPERION_HTTP_SPLICE"] = value
    yield
  ensure
    ENV["HYPERION_HTTP_SPLICE"] = saved
  end

  # Sends to a greedy reader; returns what arrived and what the call said.
  def deliver(kind, source, *region, waiter: :thread, **options, &progress)
    channel = kind.is_a?(Channels::Channel) ? kind : channel(kind)
    reader = channel.read
    said = copy_under(waiter, channel.out, source, *region, **options, &progress)
    channel.finish
    [channel.decode(reader.result), said]
  end

  # [standard output and error, success] of a script in a Ruby of its own.
  def in_another_ruby(script, env = {})
    ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
    output, status = Open3.capture2e(env, *ruby, "-e", script)
    [output, status.success?]
  end

  describe "the primitives it calls" do
    let(:calls) { observe_primitives }

    before { calls }

    (%i[thread fiber_minimal] & Waiters::ALL).select { |waiter| Waiters.by_kernel?(waiter) }.each do |waiter|
      it "are fadvise_sequential once from 256 KiB on, for the region (#{waiter})", needs: :sendfile do
        { 262_143 => 0, 262_144 => 1, 900_000 => 1 }.each do |size, times|
          [nil, "1"].each do |splice|
            calls.all.clear
            with_splice(splice) { deliver(:tcp, file, 1_003, size, waiter: waiter) }
            expect(calls.to(:fadvise_sequential).size).to eq(times)
            next if times.zero?

            advised, length, offset = calls.to(:fadvise_sequential).first.arguments
            expect([advised.fileno, length, offset]).to eq([file.fileno, size, 1_003])
            expect(calls.names.first).to eq(:fadvise_sequential)
          end
        end
      end

      it "are copy_small alone for a body that fits (#{waiter})", needs: :sendfile do
        [1, 8_192, 65_536].each do |size|
          [nil, "head"].each do |head|
            calls.all.clear
            deliver(:tcp, file, 5, size, waiter: waiter, head: head)
            expect(calls.names).to eq(%i[copy_small])
            expect(calls.all.first.arguments[2..].compact).to eq([5, size, head].compact)
          end
        end
      end

      it "are not copy_small for a larger one (#{waiter})" do
        deliver(:tcp, file, 0, 65_537, waiter: waiter)
        expect(calls.to(:copy_small)).to be_empty
      end
    end

    it "are copy once per step of a fiber, from where the last one ended", needs: %i[sendfile page_cache] do
      [65_537, large - 3].each do |size|
        calls.all.clear
        totals = []
        deliver(:tcp, file, 3, size, waiter: :fiber_minimal) { |sent| totals << sent }
        copies = calls.to(:copy)
        sent = 0
        copies.each do |call|
          expect(call.arguments[2]).to eq(3 + sent)
          sent += call.result.first
        end
        expect(sent).to eq(size)
        expect(totals.size).to eq(copies.count { |call| call.result.first.positive? })
      end
    end

    it "are copy_small once, then copy, where a fiber's small body meets a full socket",
       needs: %i[sendfile page_cache] do
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      sender = start_copy(:fiber_minimal, channel.out, file, 0, 60_000, head: "head")
      await_backpressure(channel, sender)
      reader.go(:greedy)
      expect(sender.value).to eq(60_000)
      channel.finish
      expect(reader.result).to be_payload("head".b + bytes.byteslice(0, 60_000))
      expect(calls.names.uniq).to eq(%i[copy_small copy])
      expect(calls.to(:copy_small).size).to eq(1)
      first = calls.to(:copy_small).first.result
      expect(calls.to(:copy).first.arguments[2]).to eq(first - 4)
    end

    (%i[thread fiber_minimal] & Waiters::ALL).select { |waiter| Waiters.by_kernel?(waiter) }.each do |waiter|
      it "are copy_splice_into_pipe by one pipe of its own, where splice is asked for (#{waiter})", needs: :splice do
        pipes = observe_pipes
        allow(S).to receive(:splice_runtime_supported?).and_call_original

        received, = with_splice { deliver(:tcp, file, 7, 700_001, waiter: waiter) }
        expect(received).to be_payload(bytes.byteslice(7, 700_001))
        expect(S).to have_received(:splice_runtime_supported?).at_least(:once)
        expect(pipes.map(&:open?)).to eq([false])
        expect(calls.names.uniq).to eq(%i[fadvise_sequential copy_splice_into_pipe])
        given = calls.to(:copy_splice_into_pipe).map { |call| call.arguments[4..] }.uniq
        expect(given.size).to eq(1)
        expect(given.first).to all(be_closed)
        expect(calls.to(:copy_splice_into_pipe).sum { |call| call.result.first }).to eq(700_001)
      end
    end

    it "are not those of splice for a small body, nor where it is not asked for" do
      pipes = S.splice_supported? ? observe_pipes : []
      with_splice { deliver(:tcp, file, 0, 65_536) }
      with_splice(nil) { deliver(:tcp, file, 0, large) }
      allow(S).to receive(:splice_runtime_supported?).and_return(false)
      with_splice { deliver(:tcp, file, 0, large) }
      expect(calls.to(:copy_splice_into_pipe)).to be_empty
      expect(pipes).to be_empty
    end

    it "go on with sendfile where there is no pipe to be had, and mark nothing",
       needs: %i[splice schedulers page_cache] do
      allow(S.const_get(:Native)).to receive(:with_pipe).and_return(nil)
      with_splice do
        received, = deliver(:tcp, file, 0, large, waiter: :fiber_minimal)
        expect(received).to be_payload(bytes)
        expect(S.splice_runtime_supported?).to be(true)
      end
      expect(calls.names.uniq).to eq(%i[fadvise_sequential copy])
    end
  end

  describe ".splice_runtime_supported?", needs: :splice do
    it "is true for HYPERION_HTTP_SPLICE=1 alone" do
      answers = [nil, "", "0", "1"].to_h { |value| [value, with_splice(value) { S.splice_runtime_supported? }] }
      expect(answers).to eq(nil => false, "" => false, "0" => false, "1" => true)
    end

    it "is false for good once the kernel is marked as being without it" do
      output, success = in_another_ruby(<<~RUBY, "HYPERION_HTTP_SPLICE" => "1")
        require "hyperion-sendfile"
        S = Hyperion::Http::Sendfile
        p S.splice_runtime_supported?
        p S.mark_splice_unsupported!
        p S.splice_runtime_supported?
        p S.splice_supported?
      RUBY
      expect(output.split).to eq(%w[true nil false true])
      expect(success).to be(true)
    end
  end

  describe ".fast_path_kind" do
    it "is :native for real IOs and numbers alone", needs: :sendfile do
      number = channel(:tcp).out.fileno
      [channel(:tcp).out, channel(:unix).out, channel(:pipe).out, file, $stdout, number].each do |out|
        expect(S.fast_path_kind(out)).to eq(:native)
      end
    end

    it "is :tls_userspace for a TLS connection" do
      Channels::TLS.each { |kind| expect(S.fast_path_kind(channel(kind).out)).to eq(:tls_userspace) }
    end

    it "is :userspace for whatever else writes, wherever it leads to" do
      socket = channel(:tcp).out
      temporary = Tempfile.new.tap { |each| Cleanup.later { each.close! } }
      outs = [StringIO.new, Channels::Writer.new, channel(:wrapper).out, temporary,
              Facade::Diverted.new(socket), Facade::Delegated.new(socket)]
      expect(outs.map { |out| S.fast_path_kind(out) }).to all(eq(:userspace))
    end

    it "is a TypeError for what is no destination" do
      [nil, "out", :out, 1.5, Object.new, Struct.new(:to_io).new(channel(:tcp).out)].each do |out|
        expect { S.fast_path_kind(out) }.to raise_error(TypeError, /\bout\b/)
      end
    end
  end

  describe "an object that leads to a socket" do
    types = [Facade::Diverted, Facade::Delegated]
    types.product(%i[thread blocking fiber_minimal] & Waiters::ALL, [nil, "1"]).each do |type, waiter, splice|
      it "gets its own write, and its socket nothing (#{type.name[/\w+\z/]}, #{waiter}, splice #{splice.inspect})" do
        channel = channel(:tcp)
        out = type.new(channel.wire)
        expected = +"".b
        with_splice(splice) do
          [1, 8_192, 65_536, 65_537, large].each do |size|
            [nil, "h\u00e9ad"].each do |head|
              expect(copy_under(waiter, out, file, 0, size, head: head)).to eq(size)
              expected << head.to_s.b << bytes.byteslice(0, size)
            end
          end
        end
        expect(out.written).to be_payload(expected)
        channel.wire.close
        expect(channel.peer.read).to eq("")
      end
    end
  end

  describe "what Ruby has buffered for the destination" do
    (Channels::KERNEL + Channels::TLS).product(Waiters::ALL).each do |kind, waiter|
      it "goes out first to #{kind}, by #{waiter}" do
        [[1_000, nil], [1_000, "head"], [65_537, nil], [large, "head"]].each do |size, head|
          channel = channel(kind)
          channel.out.sync = false
          channel.out.write("before ")
          reader = channel.read
          expect(copy_under(waiter, channel.out, file, 0, size, head: head)).to eq(size)
          expect(channel.out.sync).to be(false)
          channel.finish
          expect(reader.result).to be_payload("before #{head}".b + bytes.byteslice(0, size))
        end
      end
    end

    it "goes out first where the destination is in sync mode again" do
      Channels::KERNEL.product([10, 60_000, large]).each do |kind, size|
        channel = channel(kind)
        channel.out.sync = false
        channel.out.write("before ")
        channel.out.sync = true
        expect(deliver(channel, file, 0, size).first).to be_payload("before ".b + bytes.byteslice(0, size))
      end
    end

    it "goes out first from a source that is no file, and where there is nothing to send" do
      [[StringIO.new(bytes), large], [file, 0]].each do |source, size|
        channel = channel(:tcp)
        channel.out.sync = false
        channel.out.write("before ")
        expect(deliver(channel, source, 0, size).first).to be_payload("before ".b + bytes.byteslice(0, size))
      end
    end
  end

  describe "the source" do
    it "may be one File for many connections at once, and its position is nobody's" do
      file.seek(4_321)
      senders = Array.new(4) do |i|
        channel = channel(%i[tcp unix tls13 wrapper][i], small: i.zero?)
        reader = channel.read
        [channel, reader, i * 1_001, start_copy(:thread, channel.out, file, i * 1_001, 900_000 + i)]
      end
      senders.each do |channel, reader, offset, sender|
        expect(sender.value - 900_000).to eq(offset / 1_001)
        channel.finish
        expect(channel.decode(reader.result)).to be_payload(bytes.byteslice(offset, sender.value))
      end
      expect(file.pos).to eq(4_321)
      expect(file.read(10)).to eq(bytes.byteslice(4_321, 10))
    end

    %i[tcp tls13 writer].product(%i[thread fiber_minimal] & Waiters::ALL).each do |kind, waiter|
      context "to #{kind} by #{waiter}" do
        it "is read to its end where no length is given" do
          [nil, 0, 99_999, large - 1, large, large + 5].each do |offset|
            received, said = deliver(kind, file, *offset, waiter: waiter)
            expected = bytes.byteslice(offset.to_i..).to_s
            expect(received).to be_payload(expected)
            expect(said).to eq(expected.bytesize)
          end
        end

        it "may be a StringIO" do
          [nil, 1, 8_192, 700_001].each do |length|
            received, said = deliver(kind, StringIO.new(bytes), 0, length, waiter: waiter, head: "head")
            expect(received).to be_payload("head".b + bytes.byteslice(0, length || large))
            expect(said).to eq(length || large)
          end
        end

        it "may be anything with pread, at any offset" do
          [[0, nil], [7, nil], [7, 1], [8_193, 700_001], [large, nil]].each do |offset, length|
            received, said = deliver(kind, Payload::Source.new(bytes), offset, length, waiter: waiter, head: "head")
            expected = bytes.byteslice(offset, length || large)
            expect(received).to be_payload("head".b + expected)
            expect(said).to eq(expected.bytesize)
          end
        end

        it "may be a pipe or a socket, from where it stands" do
          [60_000, 700_000, nil].product(%i[pipe unix]).each do |length, feed_kind|
            feed = channel(feed_kind)
            feeder = Thread.new do
              feed.out.write(bytes)
              feed.out.close if length.nil?
            rescue Errno::EPIPE
              nil # what was not asked for
            end
            received, said = deliver(kind, feed.peer, 0, length, waiter: waiter, head: "head")
            expected = length ? bytes.byteslice(0, length) : bytes
            expect(received).to be_payload("head".b + expected)
            expect(said).to eq(expected.bytesize)
            feed.peer.close
            feeder.join
          end
        end

        %i[pread readpartial read].product([true, false]).each do |name, same_buffer|
          it "may read short by #{name}, into #{same_buffer ? "the buffer given" : "a String of its own"}" do
            [7_001, 1_000_000].product([0, 40_000, 300_000, nil]).each do |most, length|
              source = Facade.source(payload(300_000), name, most: most, same_buffer: same_buffer)
              received, said = deliver(kind, source, 0, length, waiter: waiter)
              expect(received).to be_payload(payload(300_000).byteslice(0, length || 300_000))
              expect(said).to eq(length || 300_000)
            end
          end
        end

        it "that ends early is a TruncatedError with what came before" do
          %i[pread readpartial read].each do |name|
            channel = channel(kind)
            reader = channel.read
            source = Facade.source(payload(300_000), name, most: 70_000)
            error = start_copy(waiter, channel.out, source, 0, 300_001, head: "head").error
            expect(error).to be_a(S::TruncatedError)
            expect([error.bytes_sent, error.bytes_expected]).to eq([300_000, 300_001])
            channel.finish
            expect(channel.decode(reader.result)).to be_payload("head".b + payload(300_000))
          end
        end
      end
    end

    it "may be a Tempfile, with what Ruby has buffered for it, or a file's number" do
      temporary = Tempfile.new
      Cleanup.later { temporary.close! }
      temporary.binmode
      temporary.write(bytes.byteslice(0, 300_000))
      [[temporary, 1_000], [temporary, 300_000], [temporary, nil]].each do |source, length|
        expect(deliver(:tcp, source, 0, length).first).to be_payload(bytes.byteslice(0, length || 300_000))
      end
      [[:tcp, 1_000], [:tcp, large], [:tls13, large], [:writer, nil]].each do |kind, length|
        expect(deliver(kind, file.fileno, 3, length && (length - 3)).first).to be_payload(
          bytes.byteslice(3, length ? length - 3 : large)
        )
      end
    end

    it "may be a file without a size of its own, to its end", if: File.file?("/proc/version") do
      version = File.binread("/proc/version")
      Cleanup.close(File.open("/proc/version")).tap do |proc_file|
        expect(deliver(:tcp, proc_file)).to eq([version, version.bytesize])
        expect(deliver(:tcp, proc_file, 3, 5)).to eq([version.byteslice(3, 5), 5])
        expect(deliver(:tls13, proc_file)).to eq([version, version.bytesize])
      end
    end

    it "has to have offsets where one is given" do
      channel = channel(:tcp)
      fifo = channel(:pipe).tap { |feed| feed.out.write(payload(10)) }.peer
      [fifo, Facade.source(payload(10), :read)].each do |source|
        expect { S.copy_to_socket(channel.out, source, 1, 5) }.to raise_error(ArgumentError, /\boffset\b/)
      end
      channel.finish
      expect(channel.peer.read).to eq("")
    end

    it "must not give more than it was asked for" do
      source = Object.new
      def source.read(length, _buffer) = "x" * (length + 1)
      expect { S.copy_to_socket(Channels::Writer.new, source, 0, 5) }.to raise_error(IOError, /\bfile\b/)
    end
  end

  describe "a destination with a write of its own" do
    def writer(&take)
      Object.new.tap do |out|
        written = +"".b
        out.define_singleton_method(:string) { written }
        out.define_singleton_method(:write) do |data|
          count = take.call(data)
          written << data.byteslice(0, count || data.bytesize).b
          count
        end
      end
    end

    {
      "takes everything in one go" => lambda(&:bytesize),
      "returns nil" => ->(_) {},
      "takes 7,001 bytes at a time" => ->(data) { [data.bytesize, 7_001].min },
      "takes half" => ->(data) { (data.bytesize / 2.0).ceil }
    }.each do |what, take|
      (%i[thread blocking fiber_minimal] & Waiters::ALL).each do |waiter|
        it "gets every byte once when it #{what} (#{waiter})" do
          [[file, large], [StringIO.new(bytes), large], [file, 1], [file, 0]].each do |source, size|
            out = writer(&take)
            totals = []
            head = "h\u00e9ad" * 3_000
            said = copy_under(waiter, out, source, 0, size, head: head) { |sent| totals << sent }
            expect(out.string).to be_payload(head.b + bytes.byteslice(0, size))
            expect(said).to eq(size)
            expect(totals).to eq(totals.uniq.sort)
            expect(totals.last.to_i).to eq(size)
          end
        end
      end
    end

    it "that takes nothing is an IOError, not an endless loop" do
      out = writer { 0 }
      expect { S.copy_to_socket(out, file, 0, 10) }.to raise_error(IOError, /\bout\b/)
    end

    it "may raise what it likes, and the count is right" do
      out = writer { |data| out_of_room(data) }
      def self.out_of_room(data)
        @room = (@room || 300_000) - data.bytesize
        @room.negative? ? raise(Errno::ENOSPC) : data.bytesize
      end
      expect { S.copy_to_socket(out, file) }.to raise_error(Errno::ENOSPC) { |error|
        expect(error.bytes_sent).to eq(out.string.bytesize)
        expect(error.bytes_expected).to eq(large)
      }
    end
  end

  describe "head:" do
    heads = [1, 2, 1_447, 1_448, 8_192, 65_536, 262_144, 1_000_000]

    %i[tcp tls13 writer].product(%i[thread fiber_minimal] & Waiters::ALL, [nil, "1"]).each do |kind, waiter, splice|
      next if splice && kind != :tcp

      it "of any size is whole in front of a body of any size, to #{kind} by #{waiter}, splice #{splice.inspect}" do
        heads.each_with_index do |size, i|
          head = (size.odd? ? "x" : "\u00e9") * (size.odd? ? size : size / 2)
          head.freeze if i % 4 < 2
          before = head.dup
          channel = channel(kind)
          reader = channel.read
          expected = +"".b
          with_splice(splice) do
            run_under(waiter) do
              [0, 1, 3_072, 3_073, 8_192, 8_193, 65_536, 65_537, 1_000_003].each do |length|
                raise "said otherwise" unless S.copy_to_socket(channel.out, file, 0, length, head: head) == length

                expected << head.b << bytes.byteslice(0, length)
              end
            end
          end
          channel.finish
          expect(channel.decode(reader.result)).to be_payload(expected)
          expect(head).to eq(before)
          expect(head.encoding).to eq(before.encoding)
        end
      end
    end

    it "may be empty, or wide characters" do
      ["", "h\u00e9ad".encode("UTF-16LE"), "\xff\x00".b].each do |head|
        [0, 10, 60_000, large].each do |size|
          %i[tcp tls13 writer].each do |kind|
            expect(deliver(kind, file, 0, size, head: head)).to eq([head.b + bytes.byteslice(0, size), size])
          end
        end
      end
    end

    it "goes out in front of a source that is no file" do
      [1, 300_000].product([0, 1, 300_000]).each do |head_size, size|
        head = "x" * head_size
        %i[tcp tls13 writer].each do |kind|
          received, = deliver(kind, StringIO.new(bytes), 0, size, head: head)
          expect(received).to be_payload(head.b + bytes.byteslice(0, size))
        end
      end
    end
  end

  describe "the block" do
    %i[tcp pipe tls13 writer].product(%i[thread blocking fiber_minimal fiber_async] & Waiters::ALL, [nil, "1"])
                             .each do |kind, waiter, splice|
      next if splice && %i[tcp pipe].none?(kind)

      context "to #{kind} by #{waiter}, splice #{splice.inspect}" do
        around { |example| with_splice(splice) { example.run } }

        it "gets the running total of the region, after each step, the last of them the whole" do
          [1, 65_536, 65_537, large].product(["", "x" * 9_000]).each do |size, head|
            totals = []
            channel = channel(kind, small: true)
            deliver(channel, file, large - size, size, waiter: waiter, head: head) { |sent| totals << sent }
            expect(totals).to eq(totals.uniq.sort)
            expect(totals.last).to eq(size)
            expect(totals.first).to be_positive
          end
        end

        it "is called more than once for a large region, and not at all for none" do
          totals = []
          deliver(channel(kind, small: true), file, 0, large, waiter: waiter) { |sent| totals << sent }
          expect(totals.size).to be > 1
          deliver(kind, file, 0, 0, waiter: waiter, head: "head") { |_| raise "called" }
        end

        # +leave+ gets the block's argument and leaves the block its way.
        def transfer_left_early(kind, waiter, size, &leave)
          channel = channel(kind)
          reader = channel.read
          name = waiter == :blocking ? :copy_to_socket_blocking : :copy_to_socket
          sender = start_under(waiter) do
            S.public_send(name, channel.out, payload_file(large), 0, size) do |sent|
              leave ? leave.call(sent) : (break [:broken, sent])
            end
          end
          outcome = sender.error || sender.value
          channel.finish
          [outcome, channel.decode(reader.result)]
        end

        it "may break out or raise: its value or exception gets through, and nothing leaks" do
          transfer_left_early(kind, waiter, 100) # whatever is made once, is made now
          Cleanup.run
          expect do
            [100, large].each do |size|
              (what, told), received = transfer_left_early(kind, waiter, size)
              expect(what).to eq(:broken)
              expect(received).to be_payload(bytes.byteslice(0, told))

              error, received = transfer_left_early(kind, waiter, size) { |sent| raise KeyError, sent.to_s }
              expect(error).to be_a(KeyError)
              expect(received).to be_payload(bytes.byteslice(0, error.message.to_i))
            end
            Cleanup.run
          end.not_to leak_fds
        end
      end
    end
  end

  describe "loading" do
    %w[hyperion-sendfile hyperion/http/sendfile].each do |path|
      it "works by require #{path.inspect}", needs: :another_ruby do
        output, success = in_another_ruby(<<~RUBY)
          p require(#{path.inspect}), require("hyperion-sendfile"), require("hyperion/http/sendfile")
          S = Hyperion::Http::Sendfile
          p S::USERSPACE_CHUNK, S::SMALL_FILE_THRESHOLD, S::SPLICE_THRESHOLD, S::FADVISE_THRESHOLD
          p S::TruncatedError.ancestors.include?(EOFError), S::TimeoutError.ancestors.include?(IOError), S::VERSION.class
        RUBY
        expect(success).to be(true), output
        expect(output.split[3..]).to eq(%w[262144 65536 65536 262144 true true String])
        expect(output.split.first).to eq("true")
      end
    end

    # The server's own module of this name, as far as it can be known by.
    {
      "with its extension" => "def self.copy(*) = nil",
      "without its extension" => "",
      "with its server" => "Hyperion.const_set(:Server, Class.new)"
    }.each do |what, content|
      %w[hyperion-sendfile hyperion/http/sendfile].each do |path|
        it "is a LoadError by #{path.inspect} where hyperion-rb's module is there, #{what}", needs: :another_ruby do
          output, success = in_another_ruby(<<~RUBY)
            module Hyperion; module Http; module Sendfile
              #{content}
              def self.copy_to_socket = nil
            end; end; end
            begin
              require #{path.inspect}
              puts "loaded"
            rescue LoadError => e
              puts e.message
            end
            p Hyperion::Http::Sendfile.copy_to_socket # theirs still
          RUBY
          expect(output).to match(/hyperion-rb/)
          expect(output.lines.last).to eq("nil\n")
          expect(success).to be(true)
        end
      end
    end

    it "works where only the version was asked for before, as RubyGems does", needs: :another_ruby do
      output, success = in_another_ruby('require "hyperion/http/sendfile/version"; p require("hyperion-sendfile")')
      expect([output, success]).to eq(["true\n", true])
    end

    it "takes the extension of its Ruby from a gem that comes compiled", needs: %i[extension another_ruby] do
      extension = $LOADED_FEATURES.grep(/hyperion_sendfile\.#{RbConfig::CONFIG["DLEXT"]}\z/).first
      library = File.join(Payload.dir, "compiled")
      FileUtils.cp_r(File.expand_path("../..", File.dirname(S.method(:copy_to_socket).source_location.first)), library)
      FileUtils.rm_f(Dir.glob(File.join(library, "**", File.basename(extension))))
      folder = File.join(library, "hyperion/http/sendfile", RUBY_VERSION[/\A\d+\.\d+/])
      FileUtils.mkdir(folder)
      FileUtils.cp(extension, folder)
      # RUBYOPT, since the suite may run with another build by it.
      output, = Open3.capture2({ "RUBYOPT" => nil }, RbConfig.ruby, "-I", library, "-e", <<~RUBY, err: File::NULL)
        require "hyperion-sendfile"
        puts $LOADED_FEATURES.grep(/hyperion_sendfile/)
      RUBY
      expect(output.strip).to eq(File.realpath(File.join(folder, File.basename(extension))))
    end

    it "keeps what is internal to itself" do
      rack = %i[FileBody Files Middleware ServerSocket] # where other specs have loaded that part
      expect((S.constants - rack).sort)
        .to eq(%i[DATA_FRAME_SIZE FADVISE_THRESHOLD Progress SMALL_FILE_THRESHOLD SPLICE_THRESHOLD TimeoutError
                  TruncatedError USERSPACE_CHUNK VERSION])
    end
  end
end
