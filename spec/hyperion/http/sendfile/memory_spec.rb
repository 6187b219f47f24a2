# frozen_string_literal: true

# What a transfer costs in memory, beside the bytes that are under way.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "and memory", needs: %i[extension linux] do
  # Bytes that every native thread gets for this library, from its ELF header (64 bits).
  def thread_local_bytes(library)
    elf = File.binread(library)
    return unless elf.start_with?("\x7FELF\x02".b)

    order = elf.getbyte(5) == 1 ? "<" : ">"
    table = elf.unpack1("@32Q#{order}")
    size, count = elf.unpack("@54S#{order}2")
    segments = Array.new(count) { |index| elf.unpack("@#{table + (index * size)}L#{order}2Q#{order}5") }
    segments.select { |type, *| type == 7 }.sum { |segment| segment[6] } # PT_TLS
  end

  it "keeps no buffers for threads" do
    library = $LOADED_FEATURES.find { |path| path.end_with?("hyperion_sendfile.so") }
    expect(thread_local_bytes(library) || 0).to be < 256
  end

  it "reads no more for a pipe in blocking mode than that takes" do
    report = Faults.run(:deliver, kind: :pipe, nonblock: false, size: 300_000, slow: true, faults: {})
    read = report[:journal].select { |entry| entry.call == :pread }.sum(&:result)

    expect(report).to include(error: nil, said: 300_000)
    expect(read).to be <= 310_000
  end
end
