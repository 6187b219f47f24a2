# frozen_string_literal: true

# Every byte, once, in order: over every route, destination and way of waiting.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile do
  DeliversEveryByte::ROUTES.each do |route, kinds|
    kinds.product(Waiters::ALL).each do |kind, waiter|
      context "with #{route} to #{kind}, waiting by #{waiter}" do
        it_behaves_like "delivers every byte", kind: kind, route: route, waiter: waiter
      end
    end
  end

  describe ".fast_path_kind" do
    {
      native: Channels::KERNEL, tls_userspace: Channels::TLS, userspace: Channels::MEMORY + %i[wrapper]
    }.each do |path, kinds|
      kinds.each do |kind|
        it "is #{path.inspect} for #{kind}" do
          expect(described_class.fast_path_kind(channel(kind).out)).to eq(path)
        end
      end
    end
  end
end
