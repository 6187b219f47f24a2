# frozen_string_literal: true

# What of other gems ours stands on, and what happens when that is not as it was read.
require "spec_helper"
require "open3"
require "hyperion/http/sendfile/falcon"

RSpec.describe "the gems below HTTP/2 and Falcon" do
  foundations = S.const_get(:AsyncHTTP)::Foundations
  probe = S.const_get(:AsyncHTTP)::Probe

  # The release that a plain `bundle` gives has to be one that is known.
  it "are known, in the versions of this bundle", needs: :http2 do
    all = foundations.constants.map { |name| foundations.const_get(name) }
    expect(all.map(&:why)).to all(be_nil)
    expect([S::Falcon.supported?, S::HTTP2.supported?]).to eq([true, true])
  end

  it "are told by the source of a method, comments and indentation left out" do
    before = probe.digest("Protocol::HTTP2::Window#consume")
    stub_const("Twin", Module.new)
    path = Payload.write("twin.rb", <<~RUBY)
      class Twin::Window
        # The same.
            def consume(amount)
              @available -= amount

              @used += amount # but for this
            end
        def expand(amount)
        \t@available += amount # and this
        end
      end
      class Twin::Same
      def consume(amount)
        @available -= amount
        @used += amount
      end
      end
    RUBY
    load path
    expect(probe.digest("Twin::Same#consume")).to eq(before)
    expect(probe.digest("Twin::Window#consume")).not_to eq(before)
  end

  it "are not known if a method is another, or is not there" do
    expect(probe.new("Protocol::HTTP2::Window#consume" => "000000000000").unknown).to include("#consume has changed")
    expect(probe.new("Protocol::HTTP2::Window#expand" => 2).unknown).to include("#expand has changed")
    stub_const("Endless", Class.new { def call = 1 })
    expect(probe.new("Endless#call" => "000000000000").unknown).to include("#call has changed")
    expect(probe.new("String#strip" => "000000000000").unknown).to include("#strip has changed") # written in C
    expect(probe.new("Protocol::HTTP2::Window#lost" => 1).unknown).to include("no Protocol::HTTP2::Window#lost")
  end

  it "are known whatever the locale says", needs: :http2 do
    output = run('require "hyperion/http/sendfile/falcon"; puts Encoding.default_external, Hyperion::Http::Sendfile::HTTP2.supported?',
                 { "LC_ALL" => "C", "LANG" => "C" })
    expect(output).to eq("US-ASCII\ntrue\n")
  end

  # Such as traces calls.
  it "may have modules prepended" do
    stub_const("Below", Class.new { def call(argument) = argument })
    stub_const("Traced", Class.new(Below).prepend(Module.new { def call(*) = super }))
    expect(probe.arity("Traced#call")).to eq(1)
  end

  def run(code, environment = {})
    output, status = Open3.capture2e(environment, Gem.ruby, "-I#{File.expand_path("../../lib", __dir__)}", "-e", code)
    expect(status).to be_success, output
    output
  end

  fake = <<~RUBY
    require "async/http"
    require "protocol/http2/version"
    def fake(gem, version)
      gem.send(:remove_const, :VERSION)
      gem.const_set(:VERSION, version)
    end
  RUBY

  %w[1.0.0 0.99.0.beta1].each do |version|
    it "are not known in version #{version}, which is said once, with the reason" do
      output = run(<<~RUBY)
        #{fake}
        fake(Protocol::HTTP2, "#{version}")
        require "hyperion/http/sendfile/falcon"
        http2 = Hyperion::Http::Sendfile::HTTP2
        abort "supported" if http2.supported? || !Hyperion::Http::Sendfile::Falcon.supported?
        abort http2.names.inspect if http2.names != ["h2"]
        2.times { http2.server(UNIXSocket.pair.first.tap(&:close)) rescue IOError }
      RUBY
      expect(output.lines).to contain_exactly(/HTTP.2 is off: Protocol::HTTP2::VERSION is #{version}\. .*README/)
    end
  end

  ["", "/http2", "/falcon"].each do |part|
    it "may not have been told of the protocol, which is said once (sendfile#{part})" do
      output = run(<<~RUBY)
        require "hyperion/http/sendfile/rack"
        require "protocol/rack"
        require "hyperion/http/sendfile#{part}"
        request = Struct.new(:connection).new(Object.new)
        env = { "REQUEST_METHOD" => "GET", "PATH_INFO" => "/", "protocol.http.request" => request }
        app = Hyperion::Http::Sendfile::Files.new(#{Payload.dir.inspect})
        2.times { abort "404" if app.call(env.merge("PATH_INFO" => "/#{File.basename(Payload.path(100_000))}"))[0] != 200 }
      RUBY
      expect(output.lines).to contain_exactly(/Falcon is off: .*protocol: Hyperion::Http::Sendfile::Falcon/)
    end
  end

  it "refuse HTTP/2 by a protocol-http2 that a client can end the process by, and say so once" do
    output = run(<<~RUBY)
      #{fake}
      fake(Protocol::HTTP2, "0.22.1")
      require "hyperion/http/sendfile/falcon"
      S = Hyperion::Http::Sendfile
      abort "offered" if S::HTTP2.names.include?("h2") || S::Falcon.names.include?("h2")
      2.times do
        ours, theirs = UNIXSocket.pair
        connection = S::HTTP2.server(ours)
        abort connection.version unless connection.http1?
        theirs.write("PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
        connection = S::Falcon.server(UNIXSocket.pair.tap { |one| one[1].write("PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n") }[0])
        abort connection.version unless connection.http1?
      end
    RUBY
    expect(output.lines).to contain_exactly(/HTTP.2 is off: protocol-http2 0\.22\.1 .*CONTINUATION.* 0\.23/)
  end
end
