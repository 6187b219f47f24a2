# frozen_string_literal: true

# The app by itself: what any client sees, and what shows only beside the request.
require "etc"
require "open3"
require "pathname"
require "rack/cascade"
require "rack/conditional_get"
require "rack/deflater"
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

  it "finds files after chroot(2), where /proc is not there", if: Process.respond_to?(:fork) && Process.euid.zero? do
    replace("file", "content")
    app = described_class.new(nil)
    child = fork do
      Dir.chroot(dir)
      exit!(app.serving({ "REQUEST_METHOD" => "GET" }, "/file").first == 200)
    end
    expect(Process.wait2(child).last).to be_success
  end

  it_behaves_like "a file server"

  context "where nothing is in memory yet" do
    before { allow(S.const_get(:Native)).to receive(:open_below) }

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
      allow(S.const_get(:Native)).to receive(:open_below)
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
        allow(S.const_get(:Native)).to receive(:open_below)
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
      allow(S.const_get(:Native)).to receive(:open_below)
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

  describe "a root that is switched" do
    def deploy(*names)
      names.each do |name|
        Dir.mkdir("#{dir}/#{name}")
        File.write("#{dir}/#{name}/file", name)
      end
    end

    # Another process does it all the time, until the example ends.
    def meanwhile(&switch)
      switcher = fork { loop(&switch) }
      Cleanup.later { Process.kill(:KILL, switcher) && Process.wait(switcher) }
    end

    def answers(count, **options)
      allow(S.const_get(:Native)).to receive(:open_below)
      here = DirectClient.new(S::Files.new("#{dir}/current", **options))
      Array.new(count) { here.call("GET", "/file") }
    end

    %i[inside follow refuse].each do |symlinks|
      it "by a link is never without its files (symlinks: :#{symlinks})" do
        deploy("one", "two")
        File.symlink("one", "#{dir}/current")
        meanwhile do
          %w[two one].each do |name|
            File.symlink(name, "#{dir}/next")
            File.rename("#{dir}/next", "#{dir}/current")
          end
        end
        answers = answers(1_500, symlinks: symlinks)
        expect(answers.map(&:status).uniq).to eq([200])
        expect(answers.map(&:body).uniq).to contain_exactly("one", "two")
      end

      it "in the moment between opening and judging has the file that it had, or has (symlinks: :#{symlinks})" do
        deploy("one", "two")
        File.symlink("one", "#{dir}/current")
        allow(File).to receive(:new).and_wrap_original do |open, *arguments|
          open.call(*arguments).tap do
            File.symlink("two", "#{dir}/next") unless File.symlink?("#{dir}/next")
            File.rename("#{dir}/next", "#{dir}/current")
          end
        end
        answer = answers(1, symlinks: symlinks).first
        expect([answer.status, answer.body]).to eq([200, "one"])
      end

      it "by exchanging the folders is never without its files (symlinks: :#{symlinks})" do
        deploy("current", "two")
        calls = 0
        allow(File).to receive(:new).and_wrap_original do |open, *arguments|
          open.call(*arguments).tap do
            next if (calls += 1) > 3

            # As renameat2(2) with RENAME_EXCHANGE does in one step.
            [%w[current third], %w[two current], %w[third two]].each do |from, to|
              File.rename("#{dir}/#{from}", "#{dir}/#{to}")
            end
          end
        end
        expect(answers(1, symlinks: symlinks).first.status).to eq(200)
      end
    end
  end

  describe "a link whose target's name ends as that of a deleted file does" do
    before { allow(S.const_get(:Native)).to receive(:open_below) }

    let(:refusing) { DirectClient.new(S::Files.new(dir, symlinks: :refuse)) }

    it "is not followed by :refuse" do
      replace("file (deleted)", "elsewhere")
      File.symlink("file (deleted)", "#{dir}/file")
      expect(refusing.call("GET", "/file").status).to eq(404)
      expect(refusing.call("GET", "/file%20(deleted)").body).to eq("elsewhere")
      expect(here.call("GET", "/file").body).to eq("elsewhere")
    end

    it "is told from a file that was replaced while it was opened, be it linked elsewhere or not" do
      [nil, "#{dir}/another name"].each do |link|
        replace("file", "before")
        File.link("#{dir}/file", link) if link
        once = true
        allow(File).to receive(:new).and_wrap_original do |open, *arguments|
          open.call(*arguments).tap { replace("file", "after") if (once = !once) == false }
        end
        answer = refusing.call("GET", "/file")
        expect([answer.status, %w[before after]]).to match([200, include(answer.body)])
      end
    end
  end

  describe "a file on which another process has a lease" do
    # Gives it back when it is asked to, after the seconds that it needs.
    def lease(path, needs)
      ready, told = IO.pipe
      holder = fork do
        file = File.new(path, "r+")
        asked, ask = IO.pipe
        trap("IO") { ask << "." }
        file.fcntl(1024, 1) # F_SETLEASE, F_WRLCK
        told << "."
        asked.read(1)
        sleep(needs)
        file.fcntl(1024, 2) # F_UNLCK
        sleep
      rescue SystemCallError
        exit!(1)
      end
      Cleanup.later { Process.kill(:KILL, holder) && Process.wait(holder) }
      told.close
      ready.read(1) or skip "there are no leases here"
    end

    it "is waited for" do
      replace("file", "leased")
      lease("#{dir}/file", 0.3)
      answer = here.call("GET", "/file")
      expect([answer.status, answer.body]).to eq([200, "leased"])
    end

    it "is unavailable where that takes too long" do
      stub_const("Hyperion::Http::Sendfile::Files::Root::LEASE_WAIT", 0.1)
      replace("file", "leased")
      lease("#{dir}/file", 1_000)
      answer = here.call("GET", "/file")
      expect([answer.status, answer["retry-after"]]).to eq([503, "60"])
      expect(app.serving(env("/"), "#{dir}/file").first).to eq(503)
      expect { here.call("GET", "/file") }.not_to leak_fds
    end

    it "keeps no other file waiting in an event loop", needs: :schedulers do
      stub_const("Hyperion::Http::Sendfile::Files::Root::LEASE_WAIT", 20)
      replace("file", "leased")
      replace("other", "content")
      lease("#{dir}/file", 1_000)
      status, waiting = start_under(:fiber_async) do
        leased = Array.new(20) { Async { here.call("GET", "/file") } }
        [here.call("GET", "/other").status, leased.count(&:running?)]
      ensure
        leased.each(&:stop)
      end.value
      expect([status, waiting]).to eq([200, 20])
    end
  end

  describe "a file whose size is not what the system says" do
    it "is served as it is read: /proc, where all sizes are 0" do
      proc = DirectClient.new(S::Files.new("/proc"))
      content = File.binread("/proc/version")
      answer = proc.call("GET", "/version")
      expect([answer.status, answer.body, answer["content-length"]]).to eq([200, content, content.bytesize.to_s])
      expect(answer.headers.keys).not_to include("etag", "last-modified")
      expect(proc.call("HEAD", "/version").headers).to eq(answer.headers)
      part = proc.call("GET", "/version", "range" => "bytes=1-5")
      expect([part.status, part.body]).to eq([206, content[1..5]])
    end

    it "is served as it is read: /sys, where all sizes are that of a page" do
      path = Dir.glob("/sys/kernel/mm/transparent_hugepage/enabled").first or skip "no sysfs"
      answer = DirectClient.new(S::Files.new("/sys")).call("GET", path.delete_prefix("/sys"))
      content = File.binread(path)
      expect([answer.status, answer.body, answer["content-length"]]).to eq([200, content, content.bytesize.to_s])
    end

    it "is served to its end, be it large" do
      proc = S::Files.new("/proc")
      _, headers, body = proc.call(env("/kallsyms", "HTTP_RANGE" => "bytes=0-1"))
      expect(headers.keys & %w[content-length accept-ranges etag last-modified content-range]).to be_empty
      expect(body.to_enum.sum(&:bytesize)).to eq(File.binread("/proc/kallsyms").bytesize)
      expect { proc.call(env("/kallsyms")).last.close }.not_to leak_fds
      expect { proc.call(env("/kallsyms")).last.each { next } }.not_to leak_fds
      expect { proc.call(env("/kallsyms", "HEAD")) }.not_to leak_fds
    end

    it "is no other than one that is a hole, or empty" do
      { "hole" => 4_096, "empty" => 0 }.each do |name, size|
        File.open("#{dir}/#{name}", "w") { |file| file.truncate(size) }
        [true, false].each do |cached|
          allow(S.const_get(:Native)).to receive(:open_below) unless cached
          answer = here.call("GET", "/#{name}")
          expect([answer.status, answer.body]).to eq([200, "\0" * size])
          expect(answer.headers.keys).to include("etag", "last-modified")
        end
      end
    end
  end

  describe "a file whose time says nothing of its version" do
    # Two deployments of the same size.
    def deploy(time)
      %w[v1 v2].each do |version|
        Dir.mkdir("#{dir}/#{version}")
        File.write("#{dir}/#{version}/app.js", "version = '#{version}'")
        File.utime(time, time, "#{dir}/#{version}/app.js")
      end
      switch_to("v1")
    end

    def switch_to(version)
      File.symlink(version, "#{dir}/next")
      File.rename("#{dir}/next", "#{dir}/current")
    end

    tools = { "Bazel, OSTree" => Time.at(0), "Nix" => Time.at(1), "zip" => Time.utc(1980),
              "RubyGems" => Time.utc(1980, 1, 2), "Gradle" => Time.utc(1980, 2),
              "Yarn" => Time.utc(1984, 6, 22, 21, 50), "before 1970" => Time.at(-1),
              "npm" => Time.utc(1985, 10, 26, 8, 15), "the last second" => Time.utc(1989, 12, 31, 23, 59, 59) }
    tools.each do |tool, time|
      [{}, { etag: %i[size mtime inode] }, { etag: %i[mtime] }, { etag: false }].each do |options|
        it "validates nothing by it: #{tool}, #{options}" do
          deploy(time)
          here = DirectClient.new(S::Files.new("#{dir}/current", **options))
          before = here.call("GET", "/app.js")
          expect(before.headers).not_to include("last-modified")
          switch_to("v2")
          { "if-modified-since" => time.httpdate, "if-none-match" => before["etag"].to_s,
            "if-unmodified-since" => Time.at(-5).httpdate }.each do |name, value|
            answer = here.call("GET", "/app.js", name => value)
            expect([name, answer.status, answer.body]).to eq([name, 200, "version = 'v2'"])
          end
          [time.httpdate, before["etag"].to_s].each do |validator|
            expect(here.call("GET", "/app.js", "range" => "bytes=5-", "if-range" => validator).status).to eq(200)
          end
        end
      end
    end

    it "has a tag all the same, by its inode and the time of its last status change" do
      deploy(Time.at(1))
      here = DirectClient.new(S::Files.new("#{dir}/current"))
      tag = here.call("GET", "/app.js")["etag"]
      expect(here.call("GET", "/app.js", "if-none-match" => tag).status).to eq(304)
      expect(here.call("GET", "/app.js", "range" => "bytes=0-1", "if-range" => tag).status).to eq(206)
      allow(S.const_get(:Native)).to receive(:open_below)
      expect(here.call("GET", "/app.js")["etag"]).to eq(tag)
      File.write("#{dir}/v1/app.js", "version = 'vX'") # the same inode
      File.utime(1, 1, "#{dir}/v1/app.js")
      expect(here.call("GET", "/app.js", "if-none-match" => tag).body).to eq("version = 'vX'")
    end

    it "has none where that time is of the same kind, as on an image of squashfs" do
      facts = [12, 14, 1_000_000_000, 1_000_000_000]
      identity = S::Files.const_get(:Identity)
      expect(identity.new(%i[size mtime], true, nil).etag(facts, nil)).to be_nil
      expect(identity.new(%i[size], true, nil).etag(facts, nil)).to eq('"e"')
    end

    it "is one with the time of SOURCE_DATE_EPOCH" do
      time = Time.utc(2020, 5, 5, 5, 5, 5)
      deploy(time)
      environment = ENV.to_h
      { time.to_i.to_s => nil, "nonsense" => time.httpdate, "" => time.httpdate }.each do |epoch, date|
        ENV["SOURCE_DATE_EPOCH"] = epoch
        answer = DirectClient.new(S::Files.new("#{dir}/current")).call("GET", "/app.js")
        expect([epoch, answer["last-modified"]]).to eq([epoch, date])
      end
    ensure
      ENV.replace(environment)
    end

    it "is every file, where the application says so" do
      replace("file", "x" * 100)
      File.utime(RackSite::MODIFIED, RackSite::MODIFIED, "#{dir}/file")
      here = DirectClient.new(S::Files.new(dir, last_modified: false))
      answer = here.call("GET", "/file")
      expect([answer["etag"], answer["last-modified"]]).to match([/\A"/, nil])
      date = RackSite::MODIFIED.httpdate
      [{ "if-modified-since" => date }, { "if-unmodified-since" => Time.at(0).httpdate },
       { "range" => "bytes=0-1", "if-range" => date }].each do |headers|
        expect([headers, here.call("GET", "/file", headers).status]).to eq([headers, 200])
      end
      expect(here.call("GET", "/file", "if-none-match" => answer["etag"]).status).to eq(304)
    end
  end

  describe "the entity tag" do
    it "is the same on every machine that has the file with its time" do
      tags = %w[one two].map do |name|
        replace(name, "content")
        File.utime(RackSite::MODIFIED, RackSite::MODIFIED, "#{dir}/#{name}")
        [app, S::Files.new(dir, etag: %i[inode size mtime])].map { |app| app.call(env("/#{name}"))[1]["etag"] }
      end
      expect(tags.map(&:first).uniq.size).to eq(1)
      expect(tags.map(&:last).uniq.size).to eq(2)
    end

    it "differs by the nanosecond" do
      tags = [0, 1].map do |nanosecond|
        replace("file", "content")
        time = Time.at(1_600_000_000, nanosecond, :nsec)
        File.utime(time, time, "#{dir}/file")
        here.call("GET", "/file")["etag"]
      end
      expect(tags.uniq.size).to eq(2)
    end
  end

  describe "serving" do
    let(:path) do
      replace("report.pdf", "r" * 5_000)
      "#{dir}/report.pdf"
    end

    %w[POST PUT PATCH DELETE QUERY].each do |method|
      it "answers #{method} with the whole file, whatever its headers: 206 and 304 are for GET" do
        tag = app.serving(env("/"), path)[1]["etag"]
        [{ "HTTP_RANGE" => "bytes=0-9" }, { "HTTP_RANGE" => "bytes=9999-" }, { "HTTP_IF_NONE_MATCH" => tag },
         { "HTTP_IF_MODIFIED_SINCE" => Time.now.httpdate }, { "HTTP_IF_UNMODIFIED_SINCE" => Time.at(0).httpdate },
         { "HTTP_IF_MATCH" => '"x"' }, { "HTTP_IF_NONE_MATCH" => "*" }].each do |fields|
          status, headers, body = app.serving({ "REQUEST_METHOD" => method, **fields }, path)
          expect([fields, status, body.to_a.join.bytesize]).to eq([fields, 200, 5_000])
          expect(headers.keys).not_to include("content-range")
        end
      end
    end

    it "takes a Pathname, and a request" do
      request = Struct.new(:env).new(env("/", "HEAD"))
      [Pathname(path), path, Cleanup.close(File.new(path))].each do |named|
        status, headers, = app.serving(request, named)
        expect([status, headers.values_at("content-length", "content-type")]).to eq([200, %w[5000 application/pdf]])
      end
      expect(app.serving(request, Pathname("#{dir}/none")).first).to eq(404)
    end

    it "says what is no path" do
      [nil, 7, :path, "a\0b", Object.new].each do |other|
        expect { app.serving(env("/"), other) }.to raise_error(ArgumentError, /\Apath must be a path/)
      end
    end
  end

  describe "behind Rack::Deflater" do
    let(:text) { "<p>hello hello hello</p>\n" * 4_000 }
    let(:inside) { DirectClient.new(Rack::Deflater.new(S::Files.new(dir))) }
    let(:gzip) { { "accept-encoding" => "gzip" } }

    before { replace("page.html", text) }

    it "has a weak tag when it is compressed, by which nothing is resumed and a cache can ask" do
      plain = inside.call("GET", "/page.html")
      whole = inside.call("GET", "/page.html", gzip)
      expect([whole["content-encoding"], whole["etag"]]).to eq(["gzip", "W/#{plain["etag"]}"])
      expect(plain.headers).to include("accept-ranges" => "bytes")
      expect(whole.headers).not_to include("accept-ranges")
      again = inside.call("GET", "/page.html", gzip.merge("if-none-match" => whole["etag"]))
      expect([again.status, again["etag"]]).to eq([304, whole["etag"]])
      resumed = inside.call("GET", "/page.html", "range" => "bytes=500-", "if-range" => whole["etag"])
      expect([resumed.status, resumed.body]).to eq([200, text])
    end

    it "has parts as they are" do
      ["bytes=0-9999", "bytes=0-9,50000-50009"].each do |range|
        part = inside.call("GET", "/page.html", gzip.merge("range" => range))
        expect([part.status, part["content-encoding"], part["cache-control"]]).to eq([206, nil, "no-transform"])
        expect(part["content-length"]).to eq(part.body.bytesize.to_s)
      end
    end

    it "keeps what the application says of caching" do
      { "public" => "public, no-transform", %w[public no-cache] => "public, no-cache, no-transform",
        "no-transform, public" => "no-transform, public" }.each do |given, expected|
        here = DirectClient.new(S::Files.new(dir, "cache-control" => given))
        part = here.call("GET", "/page.html", gzip.merge("range" => "bytes=0-1"))
        expect(part["cache-control"]).to eq(expected)
        part = here.call("GET", "/page.html", "range" => "bytes=0-1", "accept-encoding" => "identity")
        expect(part["cache-control"]).to eq(given)
      end
    end
  end

  describe "x-cascade" do
    script = 'app = Hyperion::Http::Sendfile::Files.new("/"); ' \
             'print app.call("REQUEST_METHOD" => "GET", "PATH_INFO" => "/none/x")[1].key("pass")'
    { "2.2.9" => "X-Cascade", "3.0.0" => "x-cascade", "3.2.8" => "x-cascade",
      nil => "x-cascade" }.each do |release, name|
      it "is #{name} with Rack #{release || "not there"}, whose frameworks look for that" do
        if release
          FileUtils.mkdir_p("#{dir}/rack")
          File.write("#{dir}/rack/version.rb", "module Rack; RELEASE = #{release.inspect}; end")
        end
        lib = File.expand_path("../../lib", __dir__)
        output, = Open3.capture2e({ "RUBYOPT" => nil }, Gem.ruby, "--disable-gems", "-I#{dir}", "-I#{lib}",
                                  *$LOAD_PATH.grep(/hyperion-sendfile/).map { |path| "-I#{path}" },
                                  "-rhyperion/http/sendfile/rack", "-e", script)
        expect(output).to eq(name)
      end
    end
  end

  it "can be shared among Ractors, as Rack::Files can" do
    script = <<~RUBY
      Rack::Mime::MIME_TYPES[".own"] = "text/own"
      app = Ractor.make_shareable(Hyperion::Http::Sendfile::Files.new(ARGV[0], "cache-control" => "public", precompressed: true))
      ractors = Array.new(3) do
        Ractor.new(app) do |app|
          ["/page.html", "/large.bin", "/my.own", "/none"].flat_map do |path|
            [{}, { "HTTP_RANGE" => "bytes=0-1,50-51" }, { "HTTP_IF_MODIFIED_SINCE" => "Sat, 29 Feb 2020 12:34:56 GMT" }].map do |more|
              status, headers, body = app.call({ "REQUEST_METHOD" => "GET", "PATH_INFO" => path, "HTTP_ACCEPT_ENCODING" => "br", **more })
              size = 0
              body.each { |chunk| size += chunk.bytesize }
              [status, headers["content-type"].to_s[0, 9], size]
            end
          end
        end
      end
      p ractors.map { |ractor| ractor.respond_to?(:value) ? ractor.value : ractor.take }.uniq
    RUBY
    replace("my.own", "x" * 10)
    %w[page.html large.bin].each { |name| FileUtils.cp("#{RackSite.root}/#{name}", dir, preserve: true) }
    output, = Open3.capture2e(RbConfig.ruby, "-W0", *$LOAD_PATH.flat_map { |path| ["-I", path] }, "-rrack/mime",
                              "-rhyperion/http/sendfile/rack", "-e", script, dir)
    page = RackSite::TEXT.bytesize
    expect(output).to start_with("[[[200, \"text/html\", #{page}], [206, \"multipart\", "), output
    expect(output).to include("[304, \"\", 0]", "[200, \"applicati\", 200003]", "[200, \"text/own\", 10]", "[404, ")
  end

  describe "options" do
    {
      "symlinks" => [:never, nil, "inside"], "etag" => [[], [:path], :mtime, true, "size", [nil], [[:size]]],
      "last_modified" => [nil, 0, :never, "false"], "precompressed" => ["br", ["zip"], :gzip, [nil], 1],
      "max_ranges" => [nil, -1, "2", 1.5, true], "max_overlaps" => [nil, -1, "2", 2.0],
      "timeout" => ["30", -1, -0.1, :long, [], Float::NAN, Complex(1, 1), true]
    }.each do |name, values|
      values.each do |value|
        it "say what they can be: #{name}: #{value.inspect}" do
          expect { S::Files.new(dir, {}, name.to_sym => value) }.to raise_error(ArgumentError, /\A#{name} /)
        end
      end
    end

    {
      "root" => [7, :public, "a\0b", Object.new, ["public"]],
      "headers" => ["text", 7, [], [%w[a b]], { x: "1" }, { "x" => 1 }, { "x" => nil }, { "x" => :y },
                    { "x" => :y.to_proc }, { "x" => "a\r\nset-cookie: b" }, { "x" => "a\nb" }, { "x" => "a\0" },
                    { "x y" => "1" }, { "" => "1" }, { "x:" => "1" }, { "x" => ["a", 1] }, { 1 => "x" }],
      "default_type" => [7, :text, false, "text/plain\r\n"]
    }.each do |name, values|
      values.each do |value|
        it "say what they can be: #{name}, #{value.inspect}" do
          arguments = { "root" => [value], "headers" => [dir, value], "default_type" => [dir, {}, value] }.fetch(name)
          expect { S::Files.new(*arguments) }.to raise_error(ArgumentError, /\A#{name}/)
        end
      end
    end

    it "are told when there are none such" do
      expect { S::Files.new(dir, cache: "x") }.to raise_error(ArgumentError, "unknown options: :cache")
    end

    it "can all be turned off" do
      replace("file", "x" * 100)
      options = { etag: false, last_modified: false, precompressed: [], max_ranges: 0, max_overlaps: 0, timeout: nil }
      here = DirectClient.new(S::Files.new(Pathname(dir), nil, nil, **options))
      answer = here.call("GET", "/file", "range" => "bytes=0-1")
      expect([answer.status, answer.headers.keys]).to eq([200, %w[content-length]])
    end

    it "may be headers without braces, as with Rack::Files, several fields of one name, and options besides" do
      replace("file", "x")
      more = { "Cache-Control" => "public", "link" => ["</a>; rel=next", "</b>; rel=prev"] }
      [S::Files.new(dir, "Cache-Control" => "public", "link" => more["link"], timeout: 5),
       S::Files.new(dir, more)].each do |app|
        expect(app.call(env("/file"))[1]).to include("cache-control" => "public", "link" => more["link"])
      end
      expect { S::Files.new(dir, "ETag" => '"x"') }.to raise_error(ArgumentError, /etag/)
    end

    it "are what they were when they were given" do
      replace("file", "x")
      value = +"public"
      app = S::Files.new(dir, "cache-control" => value)
      value.replace("a\r\nb")
      expect(app.call(env("/file"))[1]["cache-control"]).to eq("public")
    end

    it "can't be headers that are the file's own" do
      expect { S::Files.new(dir, { "Content-Length" => "5", "ETag" => '"x"', "x-ok" => "1" }) }
        .to raise_error(ArgumentError, "headers can't say content-length, etag: it is the file's")
    end
  end
end
