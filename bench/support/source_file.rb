# frozen_string_literal: true

require "tempfile"

module Bench
  # A file of random bytes in the page cache, in BENCH_DIR or else the system's temporary folder.
  module SourceFile
    BLOCK = 1 << 20
    private_constant :BLOCK

    module_function

    def directory
      ENV.fetch("BENCH_DIR") { Dir.tmpdir }
    end

    def open(size)
      Tempfile.create("bench", directory) do |file|
        file.binmode
        block = Random.bytes([size, BLOCK].min)
        (size / block.bytesize).times { file.write(block) }
        file.write(block.byteslice(0, size % block.bytesize))
        file.fsync
        yield file
      end
    end
  end
end
