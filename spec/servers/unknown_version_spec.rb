# frozen_string_literal: true

# A server in a version that nobody has looked at is served as any server: in pieces, through its own writer. The log
# says so once.
require_relative "../support/servers/server_process"
require_relative "../support/servers/wire"

RSpec.describe "files on servers of an unknown version" do
  size = 3_000_017
  versions = { "puma" => ["puma", "puma/const", "Puma::Const", :PUMA_VERSION],
               "falcon" => ["protocol/http1", "protocol/http1/version", "Protocol::HTTP1", :VERSION],
               "unicorn" => ["unicorn", "unicorn", "Unicorn::Const", :UNICORN_VERSION],
               "pitchfork" => ["pitchfork", "pitchfork", "Pitchfork", :VERSION] }

  versions.each do |name, (server, file, container, constant)|
    it "sends them the ordinary way on #{name}" do
      prelude = Payload.write("unknown-#{name}.rb", <<~RUBY)
        require "#{server}"
        require "#{file}"
        #{container}.send(:remove_const, :#{constant})
        #{container}.const_set(:#{constant}, "97.0.0")
      RUBY
      process = ServerProcess.start(name, Payload.dir, prelude: prelude)
      Cleanup.later { process.stop }
      %w[files middleware].each do |by|
        target = "/#{by}/#{File.basename(Payload.path(size))}"
        [[{}, 0..], [{ "range" => "bytes=70000-2000000" }, 70_000..2_000_000]].each do |headers, range|
          answer = Wire.new(process.connect).call("GET", target, headers)
          expect(answer.body).to be_payload(payload(size).byteslice(range))
        end
      end
      expect(Wire.new(process.connect).call("GET", "/calls").body).to eq("0")
      expect(process.log.lines.grep(/hyperion-sendfile: .* is off/)).to contain_exactly(/97\.0\.0.*README/)
    end
  end

  it "says nothing on servers of a known version" do
    versions.each_key do |name|
      process = ServerProcess.start(name, Payload.dir)
      Cleanup.later { process.stop }
      Wire.new(process.connect).call("GET", "/files/#{File.basename(Payload.path(size))}")
      expect(process.log).not_to include("hyperion-sendfile:")
    end
  end

  it "sends them the ordinary way on a server that it does not know, and says so once" do
    process = ServerProcess.start("webrick", Payload.dir)
    Cleanup.later { process.stop }
    2.times do
      answer = Wire.new(process.connect).call("GET", "/files/#{File.basename(Payload.path(size))}")
      expect(answer.body).to be_payload(payload(size))
    end
    expect(process.log.lines.grep(/hyperion-sendfile: .* is off/)).to contain_exactly(/WEBrick.* one whose socket is/)
  end

  it "says once that a Falcon has not been given the protocol" do
    prelude = Payload.write("own-protocol.rb", <<~RUBY)
      require "async/http/endpoint"
      Async::HTTP::Endpoint.prepend(Module.new { def protocol = Async::HTTP::Protocol::HTTP })
    RUBY
    process = ServerProcess.start("falcon", Payload.dir, prelude: prelude)
    Cleanup.later { process.stop }
    2.times do
      answer = Wire.new(process.connect).call("GET", "/files/#{File.basename(Payload.path(size))}")
      expect(answer.body).to be_payload(payload(size))
    end
    expect(process.log.lines.grep(/hyperion-sendfile: .* is off/)).to contain_exactly(/protocol: Hyperion::Http::Sendfile::Falcon/)
  end
end
