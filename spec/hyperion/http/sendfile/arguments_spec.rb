# frozen_string_literal: true

# A bad argument is named, and neither a byte nor a descriptor is spent on it.

require "spec_helper"
require "pathname"
require "tempfile"

RSpec.describe Hyperion::Http::Sendfile do
  let(:channel) { Channels.open(:tcp) }
  let(:file) { payload_file(8_192) }
  let(:out) { channel.out }
  let(:pipe) { IO.pipe.each { |io| Cleanup.close(io) } }

  beyond = 2**63
  closed = ->(io) { io.tap(&:close) }
  number = {
    "negative" => [-1, ArgumentError], "far below zero" => [-(2**70), ArgumentError], "a Float" => [1.0, TypeError],
    "a String" => ["1", TypeError], "beyond 2**63 - 1" => [beyond, RangeError], "far beyond" => [2**70, RangeError]
  }
  none = { "nil" => [nil, TypeError] }
  nothing_open = (1 << 20) + 3

  descriptor = {
    "nil" => [-> {}, TypeError],
    "a String" => [-> { "out" }, TypeError],
    "a negative descriptor" => [-> { -1 }, ArgumentError],
    "no descriptor" => [-> { 2**40 }, RangeError]
  }
  opened = descriptor.merge(
    "a closed IO" => [-> { closed.call(File.open(File::NULL, "r+")) }, IOError],
    "an Object" => [-> { Object.new }, TypeError]
  )
  destination = opened.merge("not open for writing" => [-> { Cleanup.close(File.open(File::NULL, "r")) }, IOError])
  source = opened.merge("not open for reading" => [-> { Cleanup.close(File.open(File::NULL, "w")) }, IOError])
  wrapper = { "something with to_io" => [-> { Channels::Wrapper.new(Channels.open(:tcp).out) }, TypeError] }

  # Per method: its arguments in order, and what is bad for each of them.
  region = { out: destination.merge(wrapper), in: source, offset: number.merge(none), len: number.merge(none) }
  primitives = {
    copy: region,
    copy_small: region,
    copy_splice: region,
    copy_splice_into_pipe: region.merge(pipe_r: opened, pipe_w: opened)
  }
  facade = {
    out: destination,
    file: source, offset: number.merge(none), len: number
  }
  methods = primitives.merge(copy_to_socket: facade, copy_to_socket_blocking: facade)

  good = {
    out: :out, in: :file, file: :file, offset: 0, len: 100, pipe_r: [:pipe, 0], pipe_w: [:pipe, 1]
  }

  define_method(:argument) do |value|
    case value
    when Symbol then public_send(value)
    when Array then public_send(value.first)[value.last]
    when Proc then value.call
    else value
    end
  end

  def received
    channel.peer.read_nonblock(100, exception: false)
  end

  # Nothing written, nothing leaked.
  def expect_untouched
    [channel, file, pipe] # opened by now
    before = Dir.children("/proc/self/fd")
    yield
    expect(Dir.children("/proc/self/fd") - before).to be_empty # an earlier example's may go meanwhile
    expect(received).to eq(:wait_readable)
  end

  methods.each do |name, parameters|
    describe ".#{name}" do
      parameters.each do |parameter, bad_values|
        bad_values.each do |what, (bad, error)|
          it "says that #{parameter} is bad: #{what}" do
            value = argument(bad)
            arguments = parameters.keys.map { |each| each == parameter ? value : argument(good.fetch(each)) }
            expect_untouched do
              expect { S.public_send(name, *arguments) }.to raise_error(error, /\b#{parameter}\b/)
            end
          end
        end
      end

      it "says that offset and len together are beyond the largest offset" do
        [[beyond - 1, 1], [1, beyond - 1], [beyond - 100, 100], [beyond - 1, beyond - 1]].each do |offset, len|
          region = { offset: offset, len: len }
          arguments = parameters.keys.map { |each| region.fetch(each) { argument(good.fetch(each)) } }
          expect_untouched do
            expect { S.public_send(name, *arguments) }.to raise_error(RangeError, /offset.*len/)
          end
        end
      end

      it "leaves the file's and Ruby's own descriptors as they were, bad call after bad call" do
        expect_untouched do
          200.times do
            S.public_send(name, out, file, -1, 100, *(pipe if name == :copy_splice_into_pipe))
          rescue ArgumentError
            next
          end
        end
      end

      it "tells the kernel's EBADF for a descriptor that is not open" do
        rest = name == :copy_splice_into_pipe ? pipe : []
        expect { S.public_send(name, nothing_open, file, 0, 100, *rest) }.to raise_error(Errno::EBADF)
        rest = IO.pipe.each { |io| Cleanup.close(io) } unless rest.empty? # what the first holds is still to go out
        expect { S.public_send(name, out, nothing_open, 0, 100, *rest) }.to raise_error(Errno::EBADF)
        expect(received).to eq(:wait_readable)
      end

      it "touches nothing for len 0" do
        nothing = name.start_with?("copy_to", "copy_small") ? 0 : [0, :done]
        rest = name == :copy_splice_into_pipe ? [nothing_open, nothing_open] : []
        expect_untouched do
          expect(S.public_send(name, nothing_open, nothing_open, 0, 0, *rest)).to eq(nothing)
          expect(S.public_send(name, out, file, beyond - 1, 0, *rest)).to eq(nothing)
          expect(S.public_send(name, out, pipe.first, 0, 0, *rest)).to eq(nothing)
        end
      end

      it "takes a Tempfile, whose to_io is an IO" do
        tempfile = Cleanup.close(Tempfile.create("source"))
        tempfile.write("0123456789")
        rest = name == :copy_splice_into_pipe ? pipe : []
        expect(Array(S.public_send(name, out, tempfile, 2, 5, *rest)).first).to eq(5)
        expect(received).to eq("23456")
      ensure
        File.delete(tempfile.path) if tempfile
      end
    end
  end

  describe ".copy_small" do
    it "names the threshold that len is over" do
      expect_untouched do
        [65_537, 2**40].each do |len|
          expect { S.copy_small(out, file, 0, len) }.to raise_error(ArgumentError, /SMALL_FILE_THRESHOLD/)
        end
      end
    end

    it "takes len up to the threshold" do
      expect(S.copy_small(out, file, 0, 65_536)).to eq(8_192)
    end
  end

  %i[copy_to_socket copy_to_socket_blocking].each do |name|
    describe ".#{name}" do
      {
        head: { "not a String" => [:head, TypeError], "an Integer" => [1, TypeError] },
        timeout: {
          "negative" => [-0.1, ArgumentError], "not a number" => [Float::NAN, ArgumentError],
          "a String" => ["30", ArgumentError], "true" => [true, ArgumentError], "a Symbol" => [:none, ArgumentError],
          "complex" => [Complex(1, 1), ArgumentError], "minus infinity" => [-Float::INFINITY, ArgumentError]
        }
      }.each do |option, bad_values|
        bad_values.each do |what, (bad, error)|
          it "says that #{option} is bad: #{what}" do
            expect_untouched do
              expect { S.public_send(name, out, file, 0, 100, option => bad) }.to raise_error(error, /\b#{option}\b/)
            end
          end
        end
      end

      it "takes a timeout that passes for a number, as ActiveSupport's 30.seconds does" do
        duration = Class.new(BasicObject) do
          def is_a?(kind) = kind == Numeric || super
          def method_missing(name, ...) = 30.public_send(name, ...)
          def respond_to_missing?(...) = 30.respond_to?(...)
        end
        channel.read
        [8, 100_000].each do |len|
          expect(S.public_send(name, out, payload_file(100_000), 0, len, timeout: duration.new)).to eq(len)
        end
      end

      it "refuses what opens a file by its name, and leaves that as it is" do
        path = Payload.write("named", "content")
        [Pathname(path), Class.new(Pathname).new(path)].each do |named|
          expect { S.public_send(name, named, file, 0, 100) }.to raise_error(TypeError, /\bout\b.*#{named.class}/)
          expect_untouched do
            expect { S.public_send(name, out, named) }.to raise_error(TypeError, /\bfile\b.*File\.new/)
          end
        end
        [File, IO].each do |named|
          expect { S.public_send(name, named, file, 0, 100) }.to raise_error(TypeError, /\bout\b/)
          expect { S.public_send(name, out, named, 0, 100) }.to raise_error(TypeError, /\bfile\b/)
        end
        expect(File.read(path)).to eq("content")
      end

      it "refuses an IO::Buffer, whose write and read are other methods" do
        buffer = IO::Buffer.new(7)
        expect { S.public_send(name, buffer, file, 0, 100) }.to raise_error(TypeError, /\bout\b/)
        expect { S.public_send(name, out, buffer, 0, 7) }.to raise_error(TypeError, /\bfile\b/)
      end

      it "sends no head where an argument is bad" do
        [
          [Object.new, 0, 1], [closed.call(File.open(File::NULL)), 0, 1], [file, -1, 1], [file, 0, -1],
          [Cleanup.close(File.open(File::NULL, "w")), 0, 1], [pipe.first, 7, 1], [file, beyond - 1, 1]
        ].each do |source, offset, len|
          expect_untouched do
            expect { S.public_send(name, out, source, offset, len, head: "head") }
              .to(raise_error do |error|
                    expect([ArgumentError, TypeError, RangeError, IOError]).to include(error.class)
                  end)
          end
        end
      end

      it "sends the head alone for len 0" do
        expect(S.public_send(name, out, file, 0, 0, head: "head")).to eq(0)
        expect(received).to eq("head")
      end

      it "says so where only the start of a stream can be sent" do
        expect_untouched do
          expect { S.public_send(name, out, pipe.first, 1, 1) }.to raise_error(ArgumentError, /\boffset\b/)
        end
      end
    end
  end

  describe ".fadvise_sequential" do
    source.each do |what, (bad, error)|
      it "says that file is bad: #{what}" do
        expect { S.fadvise_sequential(bad.call, 100) }.to raise_error(error, /\bfile\b/)
      end
    end

    number.merge(none).except("negative", "far below zero").each do |what, (bad, error)|
      it "says that len is bad: #{what}" do
        expect { S.fadvise_sequential(file, bad) }.to raise_error(error, /\blen\b/)
      end
    end

    number.merge(none).each do |what, (bad, error)|
      it "says that offset is bad: #{what}" do
        expect { S.fadvise_sequential(file, 100, bad) }.to raise_error(error, /\boffset\b/)
      end
    end

    it "does nothing for a len that is not positive" do
      expect([0, -1, -(2**70)].map { |len| S.fadvise_sequential(file, len) }).to all(eq(:noop))
    end

    it "is :ok for a file, :error for a pipe" do
      expect(S.fadvise_sequential(file, 100)).to eq(:ok)
      expect(S.fadvise_sequential(file, 100, 50)).to eq(:ok)
      expect(S.fadvise_sequential(pipe.first, 100)).to eq(:error)
    end
  end

  describe ".fast_path_kind" do
    it "says what is no destination" do
      [nil, :out, Object.new].each do |out|
        expect { S.fast_path_kind(out) }.to raise_error(TypeError, /\bout\b/)
      end
    end
  end
end
