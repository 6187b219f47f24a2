# frozen_string_literal: true

# That `rake platforms` tests what it says it tests.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "built as on another system" do
  tags = { "portable" => :unsupported, "darwin" => :darwin, "freebsd" => :bsd }

  it "is the build that was asked for" do
    expect(described_class.platform_tag).to eq(tags.fetch(ENV.fetch("HYPERION_PLATFORM")))
    expect(described_class.supported?).to be(StandInKernel.available?)
    expect(described_class.splice_supported?).to be(false)
  end

  it "advises where there is a call for it" do
    advice = described_class.fadvise_sequential(payload_file(300_007), 300_007)
    expect(advice).to eq(described_class.supported? ? :ok : :noop)
  end
end
