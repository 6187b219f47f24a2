# frozen_string_literal: true

# What rake says when `bundle install` fails, by what Bundler, RubyGems and mkmf print on Debian.
require_relative "../support/tasks/development_bundle"

RSpec.describe DevelopmentBundle do
  {
    "Could not reach host index.rubygems.org. Check your network connection and try\nagain." => /no way to rubygems/,
    "mkmf.rb can't find header files for ruby at /usr/lib/ruby/include/ruby.h\n" => /\(Debian: ruby-dev\)/,
    "You have to install development tools first. (RuntimeError)" => /C compiler \(Debian: build-essential\)/,
    "checking for openssl/ssl.h... no\nOpenSSL library could not be found." => /\(Debian: libssl-dev\)/,
    "Because every version of falcon depends on Ruby >= 3.3" => /do not fit this Ruby/
  }.each do |output, reason|
    it "tells the reason from #{output.lines.first.strip.inspect}" do
      expect(described_class.reason(output)).to match(reason)
    end
  end

  it "names none where it knows none" do
    expect(described_class.reason("Killed")).to be_nil
  end
end
