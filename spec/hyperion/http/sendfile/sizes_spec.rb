# frozen_string_literal: true

# Files whose size is not that of their content: of sysfs (4,096 for all), /proc and FUSE (0).

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "of a file that does not know its size" do
  sysfs = "/sys/kernel/mm/transparent_hugepage/enabled"
  procfs = "/proc/version"
  kinds = %i[tcp pipe tls13 writer]

  define_method(:deliver) do |kind, waiter, path, *region, **options|
    channel = channel(kind)
    reader = channel.read
    said = copy_under(waiter, channel.out, Cleanup.close(File.new(path, "rb")), *region, **options)
    channel.finish
    [said, channel.decode(reader.result)]
  end

  [sysfs, procfs].select { |path| File.file?(path) }.product(kinds, Waiters::ALL).each do |path, kind, waiter|
    context "with #{path} to #{kind}, waiting by #{waiter}" do
      let(:content) { File.binread(path) }

      it "sends what can be read of it, where no length is given" do
        ["", "head"].each do |head|
          expect(deliver(kind, waiter, path, head: head)).to eq([content.bytesize, head + content])
          expect(deliver(kind, waiter, path, 3, nil, head: head)).to eq([content.bytesize - 3, head + content[3..]])
          past = content.bytesize + 5
          expect(deliver(kind, waiter, path, past, nil, head: head)).to eq([0, head])
        end
      end

      it "keeps to a length that is given" do
        expect(deliver(kind, waiter, path, 2, 10)).to eq([10, content[2, 10]])
        expect { deliver(kind, waiter, path, 0, content.bytesize + 1) }.to raise_error(S::TruncatedError)
      end
    end
  end

  it "is not taken for a file that was truncated" do
    file = private_payload_file(1_000_003)
    File.truncate(file.path, 700_001) # behind the back of the size that was asked for
    allow(S.const_get(:Sources)).to receive(:length_to_end).and_return(1_000_003)
    channel = channel(:tcp)
    channel.read
    expect { S.copy_to_socket(channel.out, file) }
      .to raise_error(S::TruncatedError) { |e| expect(e).to have_attributes(bytes_sent: 700_001, bytes_expected: 1_000_003) }
  end

  # As FUSE with direct_io, where sendfile goes by the size and read does not.
  %i[fiber_async fiber_minimal].each do |waiter|
    it "is read where sendfile finds nothing in it (#{waiter})", needs: :sendfile do
      allow(S.const_get(:Native)).to receive(:regular_size).and_return(0)
      allow(S).to receive(:copy).and_return([0, :eof])
      channel = channel(:tcp)
      reader = channel.read
      expect(copy_under(waiter, channel.out, payload_file(1_000_003), 0, 1_000_003, head: "head")).to eq(1_000_003)
      channel.finish
      expect(reader.result).to be_payload("head".b + payload(1_000_003))
      expect(S).to have_received(:copy).once
    end
  end
end
