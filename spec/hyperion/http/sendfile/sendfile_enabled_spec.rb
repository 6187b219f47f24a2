# frozen_string_literal: true

# The switch for file systems that deliver wrong or stale bytes by sendfile: no route uses it, nor splice.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, ".sendfile_enabled", needs: :sendfile do
  include Faults::Helpers

  around do |example|
    example.run
  ensure
    S.sendfile_enabled = true
  end

  it "is on at first, and says what it is" do
    expect(S.sendfile_enabled?).to be(true)
    S.sendfile_enabled = false
    expect(S.sendfile_enabled?).to be(false)
    S.sendfile_enabled = true
    expect(S.sendfile_enabled?).to be(true)
  end

  it "can be switched off by the environment" do
    script = "require 'hyperion/http/sendfile'; exit!(Hyperion::Http::Sendfile.sendfile_enabled?)"
    ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
    { "0" => false, "off" => false, "False" => false, "1" => true, nil => true }.each do |value, enabled|
      expect(system({ "HYPERION_HTTP_SENDFILE" => value }, *ruby, "-e", script)).to be(enabled), value.inspect
    end
  end

  it "makes the primitives refuse, once their arguments are right" do
    S.sendfile_enabled = false
    channel = channel(:tcp)
    file = payload_file(500_000)
    pipe = IO.pipe.each { |io| Cleanup.close(io) }
    { copy: [], copy_splice: [], copy_splice_into_pipe: pipe }.each do |name, rest|
      expect(S.public_send(name, channel.out, file, 0, 500_000, *rest)).to eq([0, :unsupported])
      expect(S.public_send(name, channel.out, file, 0, 0, *rest)).to eq([0, :done])
      expect { S.public_send(name, channel.out, file, -1, 1, *rest) }.to raise_error(ArgumentError)
    end
    expect(S.copy_small(channel.out, file, 0, 60_000)).to eq(60_000)
  end

  it "switches splice off with it, and leaves the kind of a destination as it is", needs: :splice do
    with_splice do
      channel = channel(:tcp)
      expect { S.sendfile_enabled = false }.to change(S, :splice_runtime_supported?).from(true).to(false)
      expect(S.fast_path_kind(channel.out)).to eq(:native)
      S.sendfile_enabled = true
      expect(S.splice_runtime_supported?).to be(true) # nothing was marked
    end
  end

  Waiters::ALL.product([1_000, 60_000, 1_000_003], %i[tcp pipe]).each do |waiter, size, kind|
    it "sends #{size} bytes to a #{kind} by neither, waiting by #{waiter}", needs: :linux do
      result = Faults.run(:without_sendfile, size: size, waiter: waiter, kind: kind, head: "head")
      expect(result).to include(said: size, error: nil, fallbacks: 0,
                                routes: [size > S.small_file_threshold ? :memory : :small])
      expect(result[:fired].slice(:sendfile, :fill, :drain).values).to all(be_zero)
      expect(result[:received]).to be_payload("head".b + payload(size))
    end
  end

  [16_384, 262_144].product(%i[thread fiber_async]).each do |max, waiter|
    it "sends DATA frames of #{max} bytes without it, waiting by #{waiter}", needs: :linux do
      result = Faults.run(:without_sendfile, size: 1_000_003, waiter: waiter, kind: :tcp, frames: max)
      expect(result).to include(said: 1_000_003, error: nil, fallbacks: 0)
      expect(result[:fired].slice(:sendfile, :fill, :drain).values).to all(be_zero)
      expected = Http2Frames.expected(payload(1_000_003), stream_id: 1, max_frame_size: max)
      expect(result[:received]).to be_payload(expected)
    end
  end
end
