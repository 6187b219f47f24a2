# frozen_string_literal: true

# Every byte, once, in order, encrypted by the kernel: by every route and way of waiting.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "over kernel TLS" do
  [
    [:ktls13, :native, Waiters::ALL - [:blocking]],
    [:ktls13, :splice, %i[thread fiber_async]],
    [:ktls12, :native, %i[thread fiber_async]],
    [:ktls12, :splice, %i[thread]]
  ].each do |kind, route, waiters|
    waiters.each do |waiter|
      context "with #{route} to #{kind}, waiting by #{waiter}" do
        it_behaves_like "delivers every byte", kind: kind, route: route, waiter: waiter
      end
    end
  end
end
