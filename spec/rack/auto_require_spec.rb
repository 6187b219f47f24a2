# frozen_string_literal: true

# What Bundler.require loads, by the gem's name: README's line for Rails needs nothing else.
require "open3"

RSpec.describe "require \"hyperion-sendfile\"" do
  def run(script)
    lib = File.expand_path("../../lib", __dir__)
    output, status = Open3.capture2e({ "RUBYOPT" => nil }, Gem.ruby, "-w", "-I#{lib}",
                                     *$LOAD_PATH.grep(/hyperion-sendfile/).map { |path| "-I#{path}" },
                                     "-e", "require 'hyperion-sendfile'; S = Hyperion::Http::Sendfile; #{script}")
    expect(status).to be_success, output
    output
  end

  it "loads the parts for Rack when they are first named" do
    expect(run("print $LOADED_FEATURES.grep(%r{sendfile/rack}).size")).to eq("0")
    %w[Middleware Files FileBody].each do |name|
      expect(run("print S::#{name}, S::Files.new('/').root")).to eq("Hyperion::Http::Sendfile::#{name}/")
    end
  end

  it "knows of no others" do
    expect(run("begin; S::Missing; rescue NameError => e; print e.name; end")).to eq("Missing")
  end

  it "goes with the parts' own files, and warns of nothing" do
    expect(run("require 'hyperion/http/sendfile/rack'; print S::Middleware.new(proc {}).class"))
      .to eq("Hyperion::Http::Sendfile::Middleware")
  end
end
