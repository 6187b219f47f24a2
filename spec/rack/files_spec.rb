# frozen_string_literal: true

# The app by itself: what any client sees, and what only shows beside a request.
require "rack/mock_request"
require_relative "../support/rack/conformance"
require_relative "../support/rack/direct_client"

RSpec.describe S::Files do
  let(:client) { DirectClient.new(RackSite.app) }

  it_behaves_like "a file server"
end
