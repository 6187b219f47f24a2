# frozen_string_literal: true

require "tmpdir"
require "fileutils"

# Files whose content repeats nowhere, so that a chunk sent twice, left out or moved can't go unseen.
# Content depends on the size alone and is made once per run.
module Payload
  SPARSE_OFFSET = (4 << 30) + 4_097 # beyond what 32 bits can say, and off a page boundary
  SPARSE_LENGTH = 300_007

  class << self
    def bytes(size)
      (@bytes ||= {})[size] ||= Random.new(size).bytes(size).freeze
    end

    def path(size)
      (@paths ||= {})[size] ||= write("#{size}.bin", bytes(size))
    end

    # Data for SPARSE_LENGTH bytes at SPARSE_OFFSET and a little on either side; holes before.
    def sparse_path
      @sparse_path ||= File.join(dir, "sparse.bin").tap do |path|
        File.open(path, "wb") do |file|
          file.pwrite(bytes(SPARSE_LENGTH + 2_000), SPARSE_OFFSET - 1_000)
        end
      end
    end

    def sparse_bytes
      bytes(SPARSE_LENGTH + 2_000).byteslice(1_000, SPARSE_LENGTH)
    end

    def dir
      @dir ||= Dir.mktmpdir("payload")
    end

    def write(name, content)
      File.join(dir, name).tap { |path| File.binwrite(path, content) }
    end
  end

  # A source in memory with offsets and without a descriptor. (StringIO learnt pread only after Ruby 3.1.)
  class Source
    def initialize(content)
      @content = content
    end

    def pread(length, offset, buffer = +"")
      piece = @content.byteslice(offset, length)
      raise EOFError, "end of file reached" if piece.nil? || (piece.empty? && length.positive?)

      buffer.replace(piece)
    end
  end

  def payload(size)
    Payload.bytes(size)
  end

  # Opened for reading, closed after the example.
  def payload_file(size)
    Cleanup.close(File.open(Payload.path(size), "rb"))
  end

  # A copy that the example may truncate or write to; removed after the example.
  def private_payload_file(size, mode = "r+b")
    @private_payloads = (@private_payloads || 0) + 1
    path = Payload.write("private-#{@private_payloads}-#{size}.bin", Payload.bytes(size))
    Cleanup.later { File.delete(path) }
    Cleanup.close(File.open(path, mode))
  end

  # Where two payloads part, in a line.
  class Difference
    def initialize(actual, expected)
      @actual = actual.b
      @expected = expected.b
    end

    def none?
      @actual == @expected
    end

    def to_s
      return "#{@actual.bytesize} bytes, all equal" if none?

      at = first_offset
      "#{@actual.bytesize} bytes received, #{@expected.bytesize} expected; first difference at #{at}: " \
        "#{excerpt(@actual, at)} received, #{excerpt(@expected, at)} expected#{origin(at)}"
    end

    private

    # Binary search for the longest common prefix: quick on megabytes.
    def first_offset
      low = 0
      high = [@actual.bytesize, @expected.bytesize].min
      while low < high
        middle = (low + high + 1) / 2
        if @actual.byteslice(low, middle - low) == @expected.byteslice(low, middle - low)
          low = middle
        else
          high = middle - 1
        end
      end
      low
    end

    def excerpt(string, at)
      piece = string.byteslice(at, 8)
      piece.nil? || piece.empty? ? "the end" : piece.unpack1("H*")
    end

    # Says when what arrived at the difference belongs elsewhere in the payload: doubled, missing, misplaced.
    def origin(at)
      piece = @actual.byteslice(at, 16)
      return if piece.nil? || piece.bytesize < 16

      found = @expected.index(piece)
      " (what arrived belongs at #{found})" if found
    end
  end

  RSpec::Matchers.define :be_payload do |expected|
    match do |actual|
      @difference = Difference.new(actual, expected)
      @difference.none?
    end
    failure_message { "expected the payload, whole: #{@difference}" }
    failure_message_when_negated { "expected another payload: #{@difference}" }
  end
end
