# frozen_string_literal: true

# The app by itself: what any client sees, and what shows only beside the request.
require "etc"
require "open3"
require "rack/cascade"
require "rack/conditional_get"
require "rack/etag"
require "rack/head"
require_relative "../support/rack/conformance"
require_relative "../support/rack/direct_client"

RSpec.describe S::Files do
  let(:client) { DirectClient.new(RackSite.app) }
  let(:dir) { Dir.mktmpdir.tap { |dir| Cleanup.later { FileUtils.rm_rf(dir) } } }
  let(:app) { S::Files.new(dir) }
  let(:here) { DirectClient.new(app) }

  def env(path, method = "GET", **fields)
    { "REQUEST_METHOD" => method, "PATH_INFO" => path, **fields }
  end

  # A file that is there all at once, as a deployment would have it.
  def replace(name, content)
    File.binwrite("#{dir}/.new", content)
    File.rename("#{dir}/.new", "#{dir}/#{name}")
  end

  # The superuser may read everything.
  def as_nobody
    Process::Sys.seteuid(Process.euid.zero? ? Etc.getpwnam("nobody").uid : Process.euid)
    yield
  ensure
    Process::Sys.seteuid(Process.uid)
  end

  it_behaves_like "a file server"

  context "where nothing is in memory yet" do
    before { allow(S.const_get(:Native)).to receive(:open_cached) }

    it_behaves_like "a file server"

    context "and there is no /proc" do
      before { stub_const("Hyperion::Http::Sendfile::Files::Root::HAS_DESCRIPTORS", false) }

      it_behaves_like "a file server"
    end
  end

  describe "one descriptor" do
    it "serves the file that it told of, though another has taken its name" do
      replace("file", RackSite::LARGE)
      _, headers, body = app.call(env("/file"))
      replace("file", "short")
      expect(headers["content-length"]).to eq(RackSite::LARGE.bytesize.to_s)
      expect(body.to_enum.to_a.join).to be_payload(RackSite::LARGE)
    ensure
      body&.close
    end

    it "serves the old file or the new one, while they change all the time" do
      contents = [RackSite::TEXT, RackSite::LARGE, payload(70_000)].map(&:b)
      replace("file", contents.first)
      writer = fork { contents.cycle { |content| replace("file", content) } }
      answers = []
      answers << here.call("GET", "/file") until answers.size >= 300 && answers.uniq(&:body).size == contents.size
      expect(answers.map(&:status).uniq).to eq([200])
      answers.each do |answer|
        expect(contents).to include(answer.body)
        expect(answer["content-length"]).to eq(answer.body.bytesize.to_s)
      end
    ensure
      Process.kill(:KILL, writer)
      Process.wait(writer)
    end

    it "tells of a file that has changed what is so now" do
      replace("file", "before")
      before = here.call("GET", "/file")
      replace("file", "after!!")
      after = here.call("GET", "/file", "if-none-match" => before["etag"])
      expect([after.status, after.body, after["content-length"]]).to eq([200, "after!!", "7"])
    end

    it "raises where the file has become shorter meanwhile, and closes" do
      replace("file", RackSite::LARGE)
      _, _, body = app.call(env("/file"))
      File.truncate("#{dir}/file", 100)
      expect { body.each { next } }.to raise_error(S::TruncatedError)
      body.close
      expect(body.file).to be_closed
    end

    it "is closed again, whatever the answer" do
      replace("file", RackSite::LARGE)
      tag = here.call("GET", "/file")["etag"]
      File.symlink("/etc/hostname", "#{dir}/link")
      File.mkfifo("#{dir}/fifo")
      requests = [["GET", "/file"], ["HEAD", "/file"], ["OPTIONS", "/file"], ["GET", "/"], ["GET", "/link"],
                  ["GET", "/fifo"],
                  ["GET", "/file", { "if-none-match" => tag }], ["GET", "/file", { "if-match" => '"x"' }],
                  ["GET", "/file", { "range" => "bytes=1-2" }], ["GET", "/file", { "range" => "bytes=1-2,4-5" }],
                  ["GET", "/file", { "range" => "bytes=999999-" }], ["GET", "/file", { "range" => "bytes=0-150000" }],
                  ["GET", "/file", { "accept-encoding" => "identity;q=0" }]]
      here = DirectClient.new(S::Files.new(dir, precompressed: true))
      before = Dir.children("/proc/self/fd").size
      GC.disable # what it would close has been left open
      requests.each { |request| here.call(*request) }
      expect(Dir.children("/proc/self/fd").size).to eq(before)
    ensure
      GC.enable
    end

    # A File that lost its descriptor would close its number once more, whoever has that by then.
    it "is nobody else's when threads that open files are killed" do
      replace("file", RackSite::LARGE)
      25.times do
        thread = Thread.new { loop { app.call(env("/file")).last.close } }
        sleep(rand / 1000)
        thread.kill.join
      end
      others = Array.new(50) { Cleanup.close(File.open(dir)) }
      GC.start
      expect { others.each(&:stat) }.not_to raise_error
    end

    it "is closed when the thread that opens it is killed" do
      replace("file", RackSite::LARGE)
      allow(S.const_get(:Native)).to receive(:open_cached)
      expect(kill_after_open { app.call(env("/file")) }).to be_closed
    end

    it "is the body's to close, where it is not read at once" do
      replace("file", RackSite::LARGE)
      expect { app.call(env("/file")).last.close }.not_to leak_fds
    end
  end

  describe "the body" do
    it "has no path that a server could open anew" do
      replace("file", RackSite::LARGE)
      body = app.call(env("/file")).last
      Cleanup.later { body.close }
      expect(body).to be_a(S::FileBody)
      expect(body).not_to respond_to(:to_path)
      expect([body.segments, body.bytesize]).to eq([[[0, RackSite::LARGE.bytesize]], RackSite::LARGE.bytesize])
    end

    it "tells no length of its own where there is none, for servers add it" do
      replace("file", "x")
      tag = here.call("GET", "/file")["etag"]
      requests = [env("/file", "HEAD"), env("/file", "HTTP_IF_NONE_MATCH" => tag)]
      bodies = requests.map { |request| app.call(request).last }
      bodies.each { |body| expect(body).not_to respond_to(:to_ary) }
    end
  end

  describe "the root" do
    it "can be a link that is set to another folder" do
      %w[one two].each do |name|
        Dir.mkdir("#{dir}/#{name}")
        File.write("#{dir}/#{name}/file", name)
      end
      File.symlink("one", "#{dir}/current")
      here = DirectClient.new(S::Files.new("#{dir}/current"))
      expect(here.call("GET", "/file").body).to eq("one")
      File.symlink("two", "#{dir}/next")
      File.rename("#{dir}/next", "#{dir}/current")
      expect(here.call("GET", "/file").body).to eq("two")
    end

    %i[inside refuse].each do |symlinks|
      it "does not reach into where it was before, with symlinks: :#{symlinks}" do
        %w[one two].each { |name| Dir.mkdir("#{dir}/#{name}") }
        File.write("#{dir}/one/file", "one")
        File.symlink("../one/file", "#{dir}/two/file")
        File.symlink("one", "#{dir}/current")
        allow(S.const_get(:Native)).to receive(:open_cached)
        here = DirectClient.new(S::Files.new("#{dir}/current", symlinks: symlinks))
        expect(here.call("GET", "/file").body).to eq("one")
        File.symlink("two", "#{dir}/next")
        File.rename("#{dir}/next", "#{dir}/current")
        expect(here.call("GET", "/file").status).to eq(404)
      end
    end

    it "is where it was when the app was made, relative or not, there or not yet" do
      later = DirectClient.new(S::Files.new("#{dir}/later/"))
      relative = Dir.chdir(dir) { S::Files.new("later") }
      expect(later.call("GET", "/file").status).to eq(404)
      Dir.mkdir("#{dir}/later")
      File.write("#{dir}/later/file", "here")
      expect(later.call("GET", "/file").body).to eq("here")
      expect(DirectClient.new(relative).call("GET", "/file").body).to eq("here")
      expect(relative.root).to eq("#{dir}/later")
    end

    it "can be the root of all, or have any name" do
      expect(DirectClient.new(S::Files.new("/")).call("GET", "#{RackSite.root}/letters.txt").body).to eq(RackSite::TEXT)
      Dir.mkdir("#{dir}/d\u00E9j\u00E0")
      File.write("#{dir}/d\u00E9j\u00E0/v\u00FC", "seen")
      here = DirectClient.new(S::Files.new("#{dir}/d\u00E9j\u00E0"))
      expect(here.call("GET", "/v%C3%BC").body).to eq("seen")
      expect(here.call("GET", "/v\u00FC").body).to eq("seen")
    end

    it "is not needed for serving a path of the application's" do
      app = S::Files.new(nil)
      status, headers, body = app.serving(env("/ignored"), "#{RackSite.root}/page.html")
      expect([status, headers["content-type"], body.to_a]).to eq([200, "text/html", [RackSite::TEXT]])
      expect(app.serving(env("/ignored"), "#{RackSite.root}/missing").first).to eq(404)
      expect(app.root).to be_nil
    end
  end

  describe "a file" do
    it "that is not the one whose name was judged is not served (without /proc)" do
      allow(S.const_get(:Native)).to receive(:open_cached)
      stub_const("Hyperion::Http::Sendfile::Files::Root::HAS_DESCRIPTORS", false)
      replace("file", RackSite::LARGE)
      replace("other", RackSite::LARGE)
      expect(here.call("GET", "/file").status).to eq(200)
      allow(File).to receive(:realpath).and_call_original
      allow(File).to receive(:realpath).with("#{dir}/file").and_return("#{dir}/other")
      expect(here.call("GET", "/file").status).to eq(404)
    end

    it "that may not be read is refused" do
      replace("file", "x")
      File.chmod(0, "#{dir}/file")
      File.chmod(0o755, dir)
      answer = as_nobody { here.call("GET", "/file") }
      expect([answer.status, answer["content-type"], answer.body]).to eq([403, "text/plain", "Forbidden\n"])
    end

    it "beside one that may not be read is served all the same" do
      ["file", "file.br"].each { |name| replace(name, name) }
      File.chmod(0, "#{dir}/file.br")
      File.chmod(0o755, dir)
      coded = S::Files.new(dir, precompressed: true)
      answer = as_nobody { DirectClient.new(coded).call("GET", "/file", "accept-encoding" => "br") }
      expect([answer.status, answer.body]).to eq([200, "file"])
    end

    it "that is a FIFO is not opened for a moment, which its other end would be told of" do
      File.mkfifo("#{dir}/fifo")
      other_end = Thread.new { File.open("#{dir}/fifo", "w") { nil } }
      Cleanup.later { File.open("#{dir}/fifo", File::RDONLY | File::NONBLOCK) { other_end.join } }
      Thread.pass until other_end.stop?
      %i[inside follow refuse].each do |symlinks|
        expect(DirectClient.new(S::Files.new(dir, symlinks: symlinks)).call("GET", "/fifo").status).to eq(404)
      end
      expect(other_end.join(0.2)).to be_nil
    end

    it "that is none is not even opened where it has to be waited for" do
      Dir.mktmpdir do |outside|
        File.mkfifo("#{outside}/fifo")
        File.symlink("#{outside}/fifo", "#{dir}/link")
        allow(File).to receive(:new).and_call_original
        %i[inside follow refuse].each do |symlinks|
          expect(DirectClient.new(S::Files.new(dir, symlinks: symlinks)).call("GET", "/link").status).to eq(404)
        end
        expect(File).not_to have_received(:new).with("#{dir}/link", any_args)
      end
    end

    { "the future" => Time.now + 3_600, "a future beyond 64 bits of ns" => Time.utc(2_400) }.each do |what, time|
      it "from #{what} is of today (RFC 9110, 8.8.2.1)" do
        replace("file", "x")
        File.utime(time, time, "#{dir}/file")
        2.times { expect(Time.httpdate(here.call("GET", "/file")["last-modified"])).to be_within(5).of(Time.now) }
      end
    end

    it "from the future is of each day anew" do
      replace("file", "x")
      File.utime(Time.at(3_000_000_000), Time.at(3_000_000_000), "#{dir}/file")
      dates = [2_000_000_000, 2_000_000_100].map do |now|
        allow(S::Files.const_get(:Representation)).to receive(:now).and_return(now)
        Time.httpdate(here.call("GET", "/file")["last-modified"]).to_i
      end
      expect(dates).to eq([2_000_000_000, 2_000_000_100])
    end

    it "and its compressed form never have the same tag (8.8.3.3)" do
      ["file", "file.gz"].each do |name|
        replace(name, "xyz")
        File.utime(RackSite::MODIFIED, RackSite::MODIFIED, "#{dir}/#{name}")
      end
      here = DirectClient.new(S::Files.new(dir, etag: %i[size mtime], precompressed: true))
      tags = %w[gzip identity].map { |coding| here.call("GET", "/file", "accept-encoding" => coding)["etag"] }
      expect(tags.uniq.size).to eq(2)
    end

    it "of this second can't be resumed by its date (8.8.2.2)" do
      replace("file", "x" * 100)
      ahead = Time.at(Time.now.to_i + 100)
      File.utime(ahead, ahead, "#{dir}/file")
      now = here.call("GET", "/file")["last-modified"]
      expect(here.call("GET", "/file", "range" => "bytes=0-1", "if-range" => now).status).to eq(200)
    end

    it "is not meant by an asterisk (9.3.7)" do
      expect(here.call("OPTIONS", "*").status).to eq(200)
      expect(app.call(env("", "OPTIONS", "REQUEST_URI" => "*")).first).to eq(200) # as unicorn has it
      expect(app.call(env("*")).first).to eq(404)
    end

    it "is not searched for what a list longer than 8 KiB asks of it" do
      replace("file", "xyz")
      tag = here.call("GET", "/file")["etag"]
      { "range" => ["bytes=0-1", 206, 200], "if-none-match" => [tag, 304, 200],
        "if-match" => [tag, 200, 412] }.each do |name, (field, within, beyond)|
        statuses = [8_000, 9_000].map { |commas| here.call("GET", "/file", name => field + ("," * commas)).status }
        expect(statuses).to eq([within, beyond])
      end
    end

    it "whose whole path is too long is not found" do
      expect(here.call("GET", "/#{"long/" * 2_000}name").status).to eq(404)
    end

    it "is not what a request without a path is about" do
      expect(app.call(env(nil)).first).to eq(404)
    end

    it "is found by a path that is no valid text of its encoding" do
      expect(app.call(env((+"/\xFF").force_encoding(Encoding::UTF_8))).first).to eq(400)
      expect(app.call(env("")).first).to eq(404)
      expect(app.call(env("no/slash/../..")).first).to eq(404)
    end
  end

  describe "among others" do
    it "lets the next app try where it has nothing (Rack::Cascade, Rack::Static)" do
      hello = ->(_env) { [200, { "content-type" => "text/plain" }, ["Hello"]] }
      cascade = DirectClient.new(Rack::Cascade.new([S::Files.new(RackSite.root), hello]))
      expect(cascade.call("GET", "/missing").body).to eq("Hello")
      expect(cascade.call("POST", "/letters.txt").body).to eq("Hello")
      expect(cascade.call("GET", "/letters.txt").body).to eq(RackSite::TEXT)
      expect(here.call("GET", "/missing")["x-cascade"]).to eq("pass")
    end

    it "goes with Rack's own middleware" do
      stack = DirectClient.new(Rack::Head.new(Rack::ConditionalGet.new(Rack::ETag.new(S::Files.new(RackSite.root)))))
      answer = stack.call("GET", "/large.bin")
      expect(answer.body).to be_payload(RackSite::LARGE)
      expect(stack.call("GET", "/large.bin", "if-none-match" => answer["etag"]).status).to eq(304)
      expect(stack.call("HEAD", "/large.bin")["content-length"]).to eq(RackSite::LARGE.bytesize.to_s)
    end

    it "can be frozen, and give its headers away" do
      app.freeze
      replace("file", "x")
      2.times do
        headers = app.call(env("/file"))[1]
        expect(headers.size).to eq(5)
        headers.clear
      end
    end

    it "needs no gem" do
      script = "app = Hyperion::Http::Sendfile::Files.new(ARGV[0]); " \
               'p app.call({ "REQUEST_METHOD" => "GET", "PATH_INFO" => "/page.html" })[1]["content-type"]'
      lib = File.expand_path("../../lib", __dir__)
      output, status = Open3.capture2e({ "RUBYOPT" => nil }, Gem.ruby, "--disable-gems", "-I#{lib}",
                                       *$LOAD_PATH.grep(/hyperion-sendfile/).map { |path| "-I#{path}" },
                                       "-rhyperion/http/sendfile/rack", "-e", script, RackSite.root)
      expect([output, status.success?]).to eq(["\"text/html\"\n", true])
    end
  end

  describe "options" do
    {
      { symlinks: :never } => /symlinks can be :inside, :follow, :refuse, not :never/,
      { etag: [:path] } => /etag can be/,
      { precompressed: ["zip"] } => /precompressed can be "br", "gzip", not "zip"/
    }.each do |options, message|
      it "say what they can be: #{options}" do
        expect { S::Files.new(dir, **options) }.to raise_error(ArgumentError, message)
      end
    end

    it "can't be headers that are the file's own" do
      expect { S::Files.new(dir, { "Content-Length" => "5", "ETag" => '"x"', "x-ok" => "1" }) }
        .to raise_error(ArgumentError, "headers can't say content-length, etag: it is the file's")
    end
  end
end
