# frozen_string_literal: true

# Files by HTTP/2 to clients that others have written.
require "digest"
require "open3"
require_relative "../support/http2/served"

RSpec.describe "files to clients of HTTP/2", needs: :http2 do
  sizes = [1024, 65_536, 1_000_003, 16 * 1024 * 1024]
  huge = 64 * 1024 * 1024

  def installed?(command)
    ENV.fetch("PATH").split(":").any? { |dir| File.executable?(File.join(dir, command)) }
  end

  def run(*command)
    skip "#{command.first} is not installed" unless installed?(command.first)

    output, status = Open3.capture2(*command, binmode: true)
    expect(status).to be_success
    output
  end

  def url(server, path, scheme = "http")
    "#{scheme}://127.0.0.1:#{server.port}#{path}"
  end

  def path(size)
    "/files/#{File.basename(Payload.path(size))}"
  end

  [["http2", "http", "--http2-prior-knowledge"], ["falcon", "http", "--http2-prior-knowledge"],
   ["http2", "https", "--http2"], ["falcon", "https", "--http2"]].each do |protocol, scheme, option|
    context "with #{protocol} over #{scheme}" do
      let(:server) { ServedByHTTP2.server(protocol, *("tls" if scheme == "https")) }

      it "sends curl files of every size, and ranges of them" do
        sizes.each do |size|
          expect(run("curl", "-sSkf", option, url(server, path(size), scheme))).to be_payload(payload(size))
        end
        range = run("curl", "-sSkf", option, "-r", "70000-900000", url(server, path(1_000_003), scheme))
        expect(range).to be_payload(payload(1_000_003).byteslice(70_000..900_000))
        expect(run("curl", "-sSkfI", option, url(server, path(1024), scheme))).to start_with("HTTP/2 200")
      end

      it "sends nghttp files of every size, by its own windows and by large ones" do
        [[], %w[-w20 -W20], %w[-w30 -W30]].each do |windows|
          sizes.each do |size|
            expect(run("nghttp", "-y", *windows, url(server, path(size), scheme))).to be_payload(payload(size))
          end
        end
      end

      it "sends 64 MiB" do
        file = File.join(Payload.dir, "64m.bin")
        Cleanup.later { File.delete(file) }
        File.open(file, "wb") { |io| 4.times { |index| io.write(Random.new(index).bytes(huge / 4)) } }
        %w[curl nghttp].each do |client|
          options = client == "curl" ? ["-sSkf", option] : ["-y", "-w24", "-W24"]
          sum = Digest::SHA256.hexdigest(run(client, *options, url(server, "/files/64m.bin", scheme)))
          expect(sum).to eq(Digest::SHA256.file(file).hexdigest)
        end
      end

      it "sends h2load a hundred streams at once" do
        [[], %w[-w30 -W30]].each do |windows|
          count = 200
          said = run("h2load", "-n", count.to_s, "-c2", "-m100", *windows, url(server, path(1_000_003), scheme))
          expect(said).to include("#{count} succeeded, 0 failed, 0 errored", "2xx")
          expect(said[/\((\d+)\) data/, 1]).to eq((count * 1_000_003).to_s)
        end
      end
    end
  end

  it "speaks HTTP/1.1, too, where a client asks for that" do
    plain = ServedByHTTP2.server("falcon")
    encrypted = ServedByHTTP2.server("falcon", "tls")
    [[plain, "http"], [encrypted, "https"]].each do |server, scheme|
      expect(run("curl", "-sSkf", "--http1.1", url(server, path(1_000_003), scheme))).to be_payload(payload(1_000_003))
    end
  end

  it "leaves it to async-http where a version is not known" do
    prelude = Payload.write("unknown-http2.rb", <<~RUBY)
      require "async/http"
      require "protocol/http2/version"
      Protocol::HTTP2.send(:remove_const, :VERSION)
      Protocol::HTTP2.const_set(:VERSION, "97.0.0")
    RUBY
    server = ServerProcess.command("-r#{prelude}", ServedByHTTP2::SCRIPT, "PORT", "falcon", Payload.dir)
    Cleanup.later { server.stop }
    2.times do
      expect(run("nghttp", url(server, path(1_000_003)))).to be_payload(payload(1_000_003))
    end
    expect(run("curl", "-sSf", "--http2-prior-knowledge", url(server, "/seen"))).to include(%("bursts":0))
  end
end
