# frozen_string_literal: true

# A download that breaks off, and is taken up again by curl.
require "fileutils"
require_relative "../support/servers/server_process"

RSpec.describe "a download of 100 MB" do
  size = 100_000_007

  before(:all) do
    @path = Payload.write("download.bin", Random.new(5).bytes(size))
  end

  after(:all) { File.delete(@path) }

  %w[puma falcon unicorn pitchfork webrick].each do |name|
    it "is resumed where it broke off (#{name})" do
      server = ServerProcess.start(name, Payload.dir)
      Cleanup.later { server.stop }
      url = "http://127.0.0.1:#{server.port}/files/download.bin"
      copy = Payload.write("copy.bin", "")
      Cleanup.later { File.delete(copy) }

      breaking_off = spawn("curl", "-s", "--limit-rate", "20M", "-o", copy, url)
      eventually("a part of it", within: 20) { File.size(copy) > 10_000_000 }
      Process.kill(:KILL, breaking_off)
      Process.wait(breaking_off)
      part = File.size(copy)
      expect(part).to be < size

      head = IO.popen(["curl", "-sS", "-C", "-", "-D", "-", "-o", copy, url], &:read)
      expect(head).to match(%r{\AHTTP/1.1 206 .*^content-length: #{size - part}\r$}im)
      expect(FileUtils.compare_file(copy, @path)).to be(true)
    end
  end
end
