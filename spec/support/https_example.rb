# frozen_string_literal: true

require "open3"
require "rbconfig"
require "timeout"

# examples/https.rb as a process of its own, and curl as its client.
module HttpsExample
  SCRIPT = File.expand_path("../../examples/https.rb", __dir__)
  LIB = File.expand_path("../../lib", __dir__)

  def self.curl?
    @curl ||= system("curl", "--version", out: File::NULL, err: File::NULL)
  end

  # What it says, line by line.
  class Server
    attr_reader :url, :ktls

    def initialize(root)
      @output = IO.popen({ "VERBOSE" => "1" }, [RbConfig.ruby, "-I#{LIB}", SCRIPT, root, "0"], err: %i[child out])
      Cleanup.later { stop }
      @url = line
      @ktls = line
    end

    def line
      raise "#{SCRIPT} says nothing" unless @output.wait_readable(15)

      @output.gets(chomp: true)
    end

    # How it ended when it was told to.
    def stop
      return if @output.closed?

      Process.kill(:TERM, @output.pid)
      Timeout.timeout(10) { Process.wait2(@output.pid) }.last
    ensure
      @output.close
    end
  end

  # Returns what was received, by path, and what curl says of its connections.
  def curl(server, *paths, options: [])
    received = paths.map { |path| File.join(Payload.dir, "curl-#{path.delete("/")}") }
    targets = paths.zip(received).flat_map { |path, to| ["#{server.url}#{path}", "-o", to] }
    said, status = Open3.capture2e("curl", "-q", "-skv", "--noproxy", "*", "--max-time", "20", *options, *targets)
    expect(status).to be_success, said
    [received.map { |path| File.binread(path) }, said]
  end
end

RSpec.shared_examples "examples/https.rb" do |ktls:, kind:|
  include HttpsExample

  it "serves files over one connection, says who encrypts, and ends when it is told to" do
    Payload.path(1_000_003)
    Payload.path(1_500)
    server = HttpsExample::Server.new(Payload.dir)
    expect(server.ktls).to match(ktls)
    received, said = curl(server, "1000003.bin", "1500.bin", "none", "%2e%2e%2fetc%2fpasswd")
    expect(received.first).to be_payload(payload(1_000_003))
    expect(received[1]).to be_payload(payload(1_500))
    expect(received.drop(2)).to all(eq("404 Not Found\n"))
    expect(said.scan(/(?:Connected|Established connection) to/).size).to eq(1)
    expect(server.line).to match(/\ATLSv1\.3, \w+: #{kind}\z/)

    heads, = curl(server, "1000003.bin", options: ["-I", "--tls-max", "1.2"])
    expect(heads.first).to start_with("HTTP/1.1 200 OK\r\n").and include("content-length: 1000003\r\n")
    expect(server.line).to match(/\ATLSv1\.2, [\w-]+: #{kind}\z/)
    expect(server.stop).to be_success
  end
end
