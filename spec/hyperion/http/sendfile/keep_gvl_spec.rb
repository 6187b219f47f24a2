# frozen_string_literal: true

# The opt-in that keeps the GVL for a small response which nothing can make wait.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, ".keep_gvl" do
  around do |example|
    saved = S.keep_gvl?
    example.run
  ensure
    S.keep_gvl = saved
  end

  it "is off at first, and says what it is" do
    expect(S.keep_gvl?).to be(false)
    S.keep_gvl = true
    expect(S.keep_gvl?).to be(true)
    S.keep_gvl = nil
    expect(S.keep_gvl?).to be(false)
  end

  it "can be switched on by the environment" do
    script = "require 'hyperion/http/sendfile'; exit!(Hyperion::Http::Sendfile.keep_gvl?)"
    ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
    expect(system({ "HYPERION_HTTP_KEEP_GVL" => "1" }, *ruby, "-e", script)).to be(true)
    expect(system({ "HYPERION_HTTP_KEEP_GVL" => nil }, *ruby, "-e", script)).to be(false)
  end

  it "gives it up for no small response, and for the others as before", if: Regions.available? do
    counts = Regions.counts(Payload.path(10 << 20), HYPERION_HTTP_KEEP_GVL: "1")
    small, large = counts.partition { |what, _| what.split[1].to_i <= S.small_file_threshold }
    expect(small.size).to eq(24)
    # The next attempt, where the socket took a part of it, waits.
    expect(small.reject { |what, count| what.end_with?("65536") || count.zero? }).to be_empty
    expect(small.map(&:last)).to include(0)
    expect(large.reject { |_, count| count == 1 }).to be_empty
  end

  [1, 3_000, 65_536].product(%i[tcp pipe], %i[thread fiber_async], [nil, "head"]).each do |size, kind, waiter, head|
    it "sends every byte through a full #{kind} (#{size} bytes, #{waiter}, head: #{head.inspect})" do
      S.keep_gvl = true
      channel = channel(kind, small: true)
      reader = channel.read(:slow)
      expect(copy_under(waiter, channel.out, payload_file(size), 0, size, head: head)).to eq(size)
      channel.finish
      expect(reader.result).to be_payload(head.to_s.b + payload(size))
    end
  end

  it "says how far it got when the file is too short" do
    S.keep_gvl = true
    channel = channel(:tcp)
    expect { S.copy_to_socket(channel.out, payload_file(1_000), 200, 1_000) }
      .to raise_error(S::TruncatedError) { |error| expect(error).to have_attributes(bytes_sent: 800, bytes_expected: 1_000) }
  end

  it "raises for a peer that is gone, without a signal" do
    S.keep_gvl = true
    channel = channel(:tcp)
    channel.peer.setsockopt(:SOCKET, :LINGER, [1, 0].pack("ii"))
    channel.peer.close
    expect { 3.times { S.copy_to_socket(channel.out, payload_file(1_000), 0, 1_000) } }
      .to raise_error(SystemCallError) { |error| expect([Errno::EPIPE, Errno::ECONNRESET]).to include(error.class) }
  end

  describe "where the page cache does not have it all" do
    { "nothing of it" => [:fail, Errno::EAGAIN::Errno], "the kernel can't tell" => [:fail, Errno::EOPNOTSUPP::Errno],
      "a part" => [:shorten, 1_000], "none, it says" => [:zero, 0] }.each do |what, (action, value)|
      it "sends every byte (#{what})" do
        report = Faults.run(:deliver, size: 20_000, head: "head", small: false, keep_gvl: true,
                                      faults: { preadv2: Faults::Rule.new(action, value, 0, 1) })
        expect(report).to include(error: nil, said: 20_000, fired: include(preadv2: 1))
        expect(report[:received]).to be_payload("head".b + payload(20_000))
      end
    end
  end
end
