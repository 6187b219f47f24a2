# frozen_string_literal: true

# What is asked of kernel TLS where there may be none; spec/ktls is where there is.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile do
  let(:context) { OpenSSL::SSL::SSLContext.new }

  describe ".enable_ktls", if: described_class.platform_tag == :linux do
    it "sets the option, and leaves the others" do
      before = context.options
      expect(described_class.enable_ktls(context)).to be(true)
      expect(context.options).to eq(before | OpenSSL::SSL::OP_ENABLE_KTLS)
    end

    it "says so where OpenSSL has no such option, and touches nothing" do
      hide_const("OpenSSL::SSL::OP_ENABLE_KTLS")
      before = context.options
      expect(described_class.enable_ktls(context)).to be(false)
      expect(context.options).to eq(before)
    end

    it "raises for a context in use" do
      context.setup
      expect { described_class.enable_ktls(context) }.to raise_error(FrozenError)
    end
  end

  describe ".ktls?" do
    it "is false for whatever is no TLS connection" do
      expect([nil, 1, $stdout, StringIO.new, channel(:tcp).out, channel(:wrapper).out].map { |out| S.ktls?(out) })
        .to all(be(false))
    end

    it "is false for a connection that OpenSSL encrypts, and one that is closed" do
      Channels::TLS.each do |kind|
        out = channel(kind).out
        expect(described_class.ktls?(out)).to be(false)
        out.close
        expect(described_class.ktls?(out)).to be(false)
        expect(described_class.fast_path_kind(out)).to eq(:tls_userspace)
      end
    end
  end

  it "delivers where kernel TLS is asked for, whether there is any or not" do
    KernelTls::KINDS.each_key do |kind|
      channel = channel(kind)
      expect(described_class.fast_path_kind(channel.out)).to eq(KernelTls.available? ? :ktls : :tls_userspace)
      reader = channel.read
      expect(described_class.copy_to_socket(channel.out, payload_file(1_000_003), head: "head")).to eq(1_000_003)
      channel.finish
      expect(reader.result).to be_payload("head".b + payload(1_000_003))
    end
  end
end
