# frozen_string_literal: true

# Every byte, once, in order: over every route, destination and way of waiting.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile do
  DeliversEveryByte::ROUTES.each do |route, kinds|
    # Blocking is seen where it is harder: in a fiber under a scheduler.
    kinds.product(Waiters::ALL - [:blocking]).each do |kind, waiter|
      context "with #{route} to #{kind}, waiting by #{waiter}" do
        it_behaves_like "delivers every byte", kind: kind, route: route, waiter: waiter
      end
    end
  end

  # Read from where they stand: there is no offset to give.
  sources = {
    "a StringIO" => ->(bytes) { StringIO.new(bytes) },
    "a pipe" => lambda do |bytes|
      reader, writer = IO.pipe(binmode: true).each { |io| Cleanup.close(io) }
      feeder = Thread.new { writer.write(bytes) && writer.close }
      Cleanup.later { feeder.kill.join }
      reader
    end
  }
  sources.to_a.product(%i[tcp tls13 writer], Waiters::ALL).each do |(name, make), kind, waiter|
    context "with #{name} to #{kind}, waiting by #{waiter}" do
      [nil, 700_001].each do |length|
        it "sends #{length || "all"} bytes" do
          channel = channel(kind)
          reader = channel.read
          expected = payload(1_000_003).byteslice(0, length || 1_000_003)
          said = copy_under(waiter, channel.out, make.call(payload(1_000_003)), 0, length, head: "head")
          channel.finish
          expect(reader.result).to be_payload("head".b + expected)
          expect(said).to eq(expected.bytesize)
        end
      end
    end
  end

  describe ".fast_path_kind" do
    {
      (described_class.supported? ? :native : :userspace) => DeliversEveryByte::PLAIN,
      tls_userspace: Channels::TLS, userspace: Channels::MEMORY + %i[wrapper]
    }.each do |path, kinds|
      kinds.each do |kind|
        it "is #{path.inspect} for #{kind}" do
          expect(described_class.fast_path_kind(channel(kind).out)).to eq(path)
        end
      end
    end
  end
end
