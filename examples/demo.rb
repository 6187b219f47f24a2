# frozen_string_literal: true

# Demonstrates the main job: examples/server.rb serves a file of random bytes in a process of its own, and parallel
# connections download it; every download must have the SHA-256 of the file. Prints the route, the throughput, the
# server's CPU time and its system calls. The exit status is 0 only if every download was exact.
#
#   rake demo, or: ruby -Ilib examples/demo.rb        DEMO_MIB=8 makes the file 8 MiB instead of 64
#
# Read Run first.

require "digest"
require "English"
require "fileutils"
require "json"
require "net/http"
require "rbconfig"
require "tmpdir"
require_relative "server"

# See above.
module Demo
  S = Hyperion::Http::Sendfile

  class Failure < StandardError; end
  class NotStarted < Failure; end

  def self.which(program)
    ENV.fetch("PATH", "").split(File::PATH_SEPARATOR).map { |dir| File.join(dir, program) }
       .find { |path| File.file?(path) && File.executable?(path) }
  end

  # The whole run, in a directory that is removed afterwards.
  class Run
    CONNECTIONS = 4
    DOWNLOADS = 2 # by each connection
    TABLE = "%-16s %-7s %-10s %7s %9s   %s\n"

    def initialize(mib, dir)
      @dir = dir
      @size = mib << 20
      @www = File.join(dir, "www")
    end

    # Returns true if every download was exact.
    def call
      make_file
      puts("#{@size >> 20} MiB of random bytes, SHA-256 #{@sha256}")
      puts("#{CONNECTIONS} connections at once, #{DOWNLOADS} downloads on each, by #{Client.label}", "")
      rows = (S.splice_supported? ? [false, true] : [false]).map { |splice| measure(splice) }
      report(rows)
      rows.all? { |row| row[:exact] == row[:downloads] }
    end

    private

    def make_file
      digest = Digest::SHA256.new
      Dir.mkdir(@www)
      File.open(File.join(@www, "demo.bin"), "wb") do |file|
        (@size >> 20).times { Random.bytes(1 << 20).then { |data| digest << data and file.write(data) } }
      end
      @sha256 = digest.hexdigest
    end

    def measure(splice)
      row = {}
      cpu = Server.start(@www, splice: splice) do |server|
        row.update(server, download(server, CONNECTIONS, DOWNLOADS, splice ? "splice on " : "splice off"))
      end
      bytes = @size * row[:downloads]
      row.update(rate: bytes / row[:seconds], cpu: cpu / bytes)
      row.update(count_calls(splice)) { |key, one, other| %i[downloads exact].include?(key) ? one + other : one }
    end

    # Makes one more download, from a server under strace.
    def count_calls(splice)
      strace = Demo.which("strace") or return { note: "not counted (strace not installed)" }
      logs = File.join(@dir, "trace-#{splice}")
      result = nil
      Server.start(@www, splice: splice, under: [strace, *Trace::OPTIONS, logs], err: File::NULL) do |server|
        result = download(server, 1, 1, "traced    ")
      end
      result.merge(calls: Trace.tally(Dir["#{logs}.*"]))
    rescue NotStarted
      { note: "not counted (strace may not trace here)" }
    end

    # Downloads over several connections at once, and compares the results.
    def download(server, connections, each, label)
      paths = Array.new(connections * each) { |n| File.join(@dir, "download-#{n}") }
      progress = Progress.new(label, @size * paths.size)
      seconds = Client.download("http://127.0.0.1:#{server[:port]}/demo.bin", paths.each_slice(each)) do
        progress.show(paths.sum { |path| File.size?(path) || 0 })
      end
      exact = paths.count { |path| Digest::SHA256.file(path).hexdigest == @sha256 }
      { downloads: paths.size, exact: exact, seconds: seconds }
    ensure
      FileUtils.rm_f(paths)
    end

    def report(rows)
      puts
      printf(TABLE, "route", "splice", "exact", "MB/s", "CPU s/GB", "system calls per response")
      rows.each do |row|
        printf(TABLE, "#{row[:kind]}, #{row[:platform]}", row[:splice] ? "on" : "off",
               "#{row[:exact]} of #{row[:downloads]}", (row[:rate] / 1e6).round, (row[:cpu] * 1e9).round(3), calls(row))
      end
    end

    def calls(row)
      row[:note] || "#{row[:calls].sum(&:last)}: #{row[:calls].map { |call| call.join(" ") }.join(", ")}"
    end
  end

  # The example server in another process, so that its CPU time is its own.
  module Server
    COMMAND = [RbConfig.ruby, "-I", File.expand_path("../lib", __dir__), __FILE__, "--serve"].freeze

    # Yields facts that the server reports: port, kind, platform, splice. Returns the CPU seconds that it spent serving.
    # The server has its own process group, so that only the parent gets Ctrl-C; the parent ends the server in any
    # state.
    def self.start(dir, splice:, under: [], err: $stderr)
      env = { "HYPERION_HTTP_SPLICE" => splice ? "1" : nil }
      pipe = IO.popen(env, [*under, *COMMAND, dir], "r+", pgroup: true, err: err)
      yield JSON.parse(pipe.gets || raise(NotStarted, "the server did not start"), symbolize_names: true)
      pipe.close_write
      cpu = Float(pipe.read)
    ensure
      Process.kill(:KILL, -pipe.pid) if pipe && !cpu
      pipe&.close
    end

    # The counterpart of start. It ends when its standard input is closed, therefore also if the parent dies.
    def self.serve(dir)
      server = FileServer.new(dir, port: 0)
      $stdout.sync = true
      puts(facts(server).to_json)
      Thread.new { $stdin.read && server.stop }
      before = cpu_seconds
      server.run
      puts(cpu_seconds - before)
    end

    def self.facts(server)
      kind = TCPSocket.open("127.0.0.1", server.port) { |socket| S.fast_path_kind(socket) }
      { port: server.port, kind: kind, platform: S.platform_tag, splice: S.splice_runtime_supported? }
    end

    def self.cpu_seconds = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
  end

  # Downloads one URL to several paths: each group of paths over its own connection, one after another.
  module Client
    CURL = Demo.which("curl")
    WRITE_OUT = "%{num_connects}\\n" # rubocop:disable Style/FormatStringToken -- curl's own
    OPTIONS = ["-q", "-sS", "--fail", "--fail-early", "--noproxy", "*", "-w", WRITE_OUT].freeze

    # Yields now and then, and at the end. Returns the seconds it took.
    def self.download(url, groups)
      started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      clients = groups.map { |paths| start(url, paths) }
      yield until clients.all? { |client| client.join(0.05) }
      seconds = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
      yield
      seconds
    ensure
      clients&.each { |client| client.kill.join if client.alive? }
    end

    def self.start(url, paths)
      Thread.new do
        Thread.current.report_on_exception = false # join raises it
        CURL ? curl(url, paths) : net_http(URI(url), paths)
      end
    end

    def self.label = CURL ? "curl" : "Net::HTTP"

    def self.curl(url, paths)
      pipe = IO.popen([CURL, *OPTIONS, *paths.flat_map { |path| ["-o", path, url] }])
      connects = pipe.read.split.sum(&:to_i)
      pipe.close
      raise Failure, "curl: #{$CHILD_STATUS}" unless $CHILD_STATUS.success?
      raise Failure, "#{connects} connections for #{paths.size} downloads" unless connects == 1
    ensure
      Process.kill(:TERM, pipe.pid) && pipe.close unless pipe.nil? || pipe.closed?
    end

    def self.net_http(uri, paths)
      Net::HTTP.new(uri.host, uri.port, nil).start do |http|
        paths.each do |path|
          http.request_get(uri.path) do |response|
            response.value # raises unless the status is 2xx
            File.open(path, "wb") { |file| response.read_body { |data| file.write(data) } }
          end
        end
      end
    end
  end

  # Shows the progress: a bar on a terminal, else a line per quarter.
  class Progress
    WIDTH = 40

    def initialize(label, total)
      @label = label
      @total = total
      @quarter = 0
    end

    def show(bytes)
      if $stdout.tty?
        bar = ("#" * (bytes * WIDTH / @total)).ljust(WIDTH, ".")
        print("\r#{@label} [#{bar}] #{bytes * 100 / @total} %#{"\n" if bytes == @total}")
      elsif bytes * 4 / @total > @quarter
        @quarter = bytes * 4 / @total
        puts("#{@label} #{@quarter * 25} %")
      end
      $stdout.flush
    end
  end

  # The system calls of one response, from the logs of `strace -ff`: a file per thread, a line per call.
  module Trace
    OPTIONS = %w[-ff -e signal=none -o].freeze

    # Counts the calls of the serving thread, from reading the request to the last call that sent bytes.
    def self.tally(logs)
      calls = logs.map { |log| File.readlines(log).drop_while { |call| !call.include?('"GET ') } }.find(&:any?)
      sent = sending(calls.first[/\((\d+)/, 1])
      last = calls.rindex { |call| call.match?(sent) }
      calls.first(last + 1).map { |call| call[/\A\w+/] }.tally.sort_by { |name, count| [-count, name] }
    end

    # Whether the call sent bytes to the socket.
    def self.sending(socket)
      /\A(?:(?:send\w+|writev?)\(#{socket},|splice\(\d+, [^,]+, #{socket},).* = [1-9]/
    end
  end

  def self.main
    return Server.serve(ARGV.fetch(1)) if ARGV.first == "--serve"

    unwind_on_signals
    mib = Integer(ENV.fetch("DEMO_MIB", "64"), exception: false)
    abort("DEMO_MIB must be a whole number of MiB, 1 or more") unless mib&.positive?
    exit(Dir.mktmpdir("sendfile-demo") { |dir| Run.new(mib, dir).call })
  rescue Failure => e
    abort("demo failed: #{e.message}")
  rescue SignalException => e
    exit(128 + e.signo)
  end

  # Raises on a signal, so that every process and file is cleaned up. Another signal must not interrupt that.
  def self.unwind_on_signals
    signals = %w[INT TERM HUP]
    signals.each do |signal|
      trap(signal) do
        signals.each { |other| trap(other, "IGNORE") }
        raise SignalException, signal
      end
    end
  end
end

Demo.main if $PROGRAM_NAME == __FILE__
