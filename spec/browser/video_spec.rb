# frozen_string_literal: true

# A video in headless Chromium, which reports by itself what it sees.
require "digest"
require "json"
require_relative "../support/servers/server_process"

RSpec.describe "a video in a browser" do
  missing = %w[chromium ffmpeg].reject do |command|
    ENV.fetch("PATH").split(File::PATH_SEPARATOR).any? { |dir| File.executable?(File.join(dir, command)) }
  end

  def lines(name)
    path = File.join(@root, name)
    File.exist?(path) ? File.readlines(path).map { |line| JSON.parse(line, symbolize_names: true) } : []
  end

  # A minute of noise and a clock, some MB.
  before(:all) do
    next if missing.any?

    @video = File.join(Payload.dir, "video.webm")
    system("ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi",
           "-i", "testsrc2=size=320x180:rate=10:duration=60,noise=alls=80:allf=t",
           "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "16", "-g", "20",
           "-b:v", "2M", "-minrate", "2M", "-maxrate", "2M", @video, exception: true)
  end

  around do |example|
    Dir.mktmpdir("hyperion-sendfile-browser") do |root|
      @root = root
      example.run
    end
  end

  def open_in_chromium(url)
    profile = File.join(@root, "profile")
    pid = spawn("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--autoplay-policy=no-user-gesture-required", "--user-data-dir=#{profile}",
                "--remote-debugging-port=0", # keeps it from ending when the page is loaded
                url, in: File::NULL, %i[out err] => File::NULL, pgroup: true)
    Cleanup.later do
      Process.kill(:KILL, -pid)
      Process.wait(pid)
    end
  end

  %w[puma falcon unicorn pitchfork webrick].each do |name|
    it "plays, and seeks to its end (#{name})" do
      if missing.any?
        warn "SKIPPED: #{missing.join(" and ")} is not installed"
        skip "needs #{missing.join(", ")}"
      end

      FileUtils.cp([@video, File.join(__dir__, "page.html")], @root)
      server = ServerProcess.command(File.expand_path("../support/servers/recorded.rb", __dir__), name, "PORT", @root)
      Cleanup.later { server.stop }
      open_in_chromium("http://127.0.0.1:#{server.port}/page.html")
      report = eventually("the page's report", within: 25, every: 0.1) { lines("reports").first }

      expect(report).to include(duration: 60.0, width: 320, statuses: [206, 206, 206],
                                sha256: Digest::SHA256.file(@video).hexdigest)
      expect(report[:time]).to be_within(0.2).of(59)

      size = File.size(@video)
      media = lines("answers").select { |answer| answer[:path] == "/video.webm" && answer[:status] == 206 }
      # What the player asked for, beside the page's three: the start, and something near the end for the seek.
      expect(media.size).to be >= 5
      expect(media.map { |answer| answer[:content_range] }).to include("bytes 0-#{size - 1}/#{size}")
      expect(media.map { |answer| answer[:content_range][/\d+/].to_i }).to include(be > size * 0.9)
    end
  end
end
