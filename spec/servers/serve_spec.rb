# frozen_string_literal: true

# What `rake serve` starts.
require_relative "../support/servers/server_process"
require_relative "../support/servers/wire"

RSpec.describe "a directory on a server" do
  serve = File.expand_path("../../examples/serve.rb", __dir__)

  around do |example|
    Dir.mktmpdir("hyperion-sendfile-serve") do |dir|
      @root = File.join(dir, "root")
      FileUtils.mkdir_p([File.join(@root, "sub folder"), File.join(dir, "outside")])
      File.binwrite(File.join(@root, "video.bin"), payload(100_001))
      ["<b>&\".txt", "javascript:x", "ü#?.txt", ".hidden"].each { |name| File.write(File.join(@root, name), "text") }
      File.symlink("../outside", File.join(@root, "out"))
      example.run
    end
  end

  def start(serve, name, environment: {})
    server = ServerProcess.command(serve, @root, "PORT", name, environment: environment)
    Cleanup.later { server.stop }
    server
  end

  def get(server, target, method = "GET")
    Wire.new(Cleanup.close(server.connect)).call(method, target)
  end

  %w[puma falcon unicorn pitchfork webrick].each do |name|
    %w[INT TERM].each do |signal|
      it "is served by #{name} until SIG#{signal}" do
        server = start(serve, name)
        page = get(server, "/")
        expect([page.status, page["content-type"]]).to eq([200, "text/html; charset=utf-8"])
        expect(get(server, "/video.bin").body).to be_payload(payload(100_001))
        Process.kill(signal, server.pid)
        _, status = Process.wait2(server.pid)
        expect(status).to be_success
        server.ended
      end
    end
  end

  # What it prints until it ends, or until the block, which gets each line, returns true.
  def lines(serve, *arguments)
    read, write = IO.pipe
    library = File.expand_path("../../lib", __dir__)
    pid = spawn(Gem.ruby, "-I#{library}", serve, *arguments.map(&:to_s), in: File::NULL, %i[out err] => write)
    write.close
    Cleanup.later { read.close }
    [].tap do |lines|
      while (line = read.gets)
        lines << line
        break if yield(line)
      end
    end
  ensure
    Process.kill(:TERM, pid)
    _, @status = Process.wait2(pid)
  end

  %w[puma falcon unicorn pitchfork webrick].each do |name|
    it "is announced by #{name} once it can be had" do
      port = TCPServer.open("127.0.0.1", 0) { |server| server.local_address.ip_port }
      announced = lines(serve, @root, port, name) do |line|
        TCPSocket.new("127.0.0.1", port).close if line.start_with?("Serving")
        line.start_with?("Serving")
      end
      expect(announced.last).to eq("Serving #{@root} at http://127.0.0.1:#{port}/ with #{name}; Ctrl-C stops it.\n")
    end

    it "says in a line that its port is in use (#{name})" do
      port = Cleanup.close(TCPServer.new("127.0.0.1", 0)).local_address.ip_port
      expect(lines(serve, @root, port, name) { false }).to eq(["serve: port #{port} is in use\n"])
      expect(@status.exitstatus).to eq(1)
    end
  end

  it "is served by the gem's command, by the first server that is there" do
    command = File.expand_path("../../exe/hyperion-sendfile", __dir__)
    port = TCPServer.open("127.0.0.1", 0) { |server| server.local_address.ip_port }
    expect(lines(command, @root, port) { |line| line.start_with?("Serving") }.last).to include(":#{port}/ with puma")
    expect(lines(command, "--help") { false }).to match([/\Ausage: hyperion-sendfile \[DIR/])
    expect(lines(command, "#{@root}/none") { false }).to eq(["hyperion-sendfile: #{@root}/none is no directory\n"])
  end

  ["abc", "0", "65536", "80.5", "-1"].each do |port|
    it "says in a line that #{port} is no port" do
      expect(lines(serve, @root, port) { false }).to eq(["serve: #{port} is no port: 1 to 65535\n"])
      expect(@status.exitstatus).to eq(1)
    end
  end

  it "is listed with its names escaped, for HTML and for the URL" do
    server = start(serve, "puma")
    links = get(server, "/").body.scan(%r{<li><a href="([^"]*)">([^<]*)</a>})
    expect(links).to include(["./%3Cb%3E%26%22.txt", "&lt;b&gt;&amp;&quot;.txt"], ["./javascript%3Ax", "javascript:x"],
                             ["./%C3%BC%23%3F.txt", "ü#?.txt".b], ["./sub%20folder/", "sub folder/"])
    expect(links.map(&:last)).not_to include(".hidden", "../")
    links.map(&:first).grep_v(%r{/\z}).each { |link| expect(get(server, link.delete_prefix(".")).status).to eq(200) }
  end

  it "is listed whatever the locale, with links to all names that can be asked for" do
    FileUtils.mkdir_p([File.join(@root, "ü", "ö"), File.join(@root.b, "ü".b, "\xFE".b)])
    File.write(File.join(@root, "ü".b, "\xFF".b), "not UTF-8")
    %w[C C.UTF-8].each do |locale|
      server = start(serve, "puma", environment: { "LC_ALL" => locale })
      page = get(server, "/%C3%BC/")
      expect([locale, page.status]).to eq([locale, 200])
      expect(page.body.scan(/href="([^"]*)">([^<]*)/).drop(1)).to eq([["./%C3%B6/", "ö/".b]])
      expect(page.body.scan(/<li>([^<]+)/)).to eq([["\u{FFFD}/ ".b], ["\u{FFFD} ".b]])
      ["/%C3%BC/%FE/", "/%C3%BC/%FF"].each { |target| expect(get(server, target).status).to eq(400) }
      ["/%FF", "/\xC3/%C3".b, "http://127.0.0.1"].each { |target| expect(get(server, target).status).to be < 500 }
    end
  end

  it "leads to its folders, and not out of it" do
    server = start(serve, "puma")
    { "/sub%20folder" => "/sub%20folder/", "/sub%20folder?a=1&b=%3F?" => "/sub%20folder/?a=1&b=%3F?",
      "//sub%20folder?" => "/sub%20folder/" }.each do |target, location|
      answer = get(server, target)
      expect([target, answer.status, answer["location"]]).to eq([target, 301, location])
    end
    expect(get(server, "/sub%20folder/").body).to include('<a href="../">../</a>')
    { "OPTIONS" => 200, "POST" => 405 }.each do |method, status|
      answer = get(server, "/sub%20folder/", method)
      expect([answer.status, answer["allow"]]).to eq([status, "GET, HEAD, OPTIONS"])
    end
    ["/out/", "/out", "/%2e%2e/", "/sub%20folder/../../", "//outside/", "/none/"].each do |target|
      expect([target, get(server, target).status]).to eq([target, 404])
    end
  end
end
