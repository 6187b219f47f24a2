# frozen_string_literal: true

require "net/http"
require "socket"
require "tempfile"

module Bench
  # A server in a process group of its own, on a port of its own, ended and waited for whatever happens.
  class WebServer
    START = 30 # seconds
    STOP = 5
    SETTLE = 0.2 # strace says that it has attached a little before it counts
    private_constant :START, :STOP, :SETTLE

    class NotStarted < StandardError; end

    # System calls that move bytes, failed ones too.
    Calls = Struct.new(:reads, :writes)
    READS = %w[read readv pread64 preadv preadv2 recvfrom recvmsg].freeze
    WRITES = %w[write writev pwrite64 pwritev sendto sendmsg sendfile splice].freeze
    # A line of what `strace -c` says: the number of calls, and which.
    COUNT = /\A\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$/
    private_constant :READS, :WRITES, :COUNT

    attr_reader :port

    def self.free_port
      TCPServer.open("127.0.0.1", 0) { |server| server.local_address.ip_port }
    end

    # The block makes the environment and the command line for a port.
    def initialize(name)
      @name = name
      @port = WebServer.free_port
      command = yield @port
      @log = Tempfile.new("bench")
      @pid = Process.spawn(*command, in: File::NULL, out: @log.path, err: @log.path, pgroup: true, chdir: "/")
    rescue Errno::ENOENT => e
      raise NotStarted, e.message
    end

    # Waits until it takes connections.
    def ready
      deadline = Measure.now + START
      until reachable?
        raise NotStarted, "it ended: #{last_words}" if ended?
        raise NotStarted, "it takes no connections: #{last_words}" if Measure.now > deadline

        sleep(0.02)
      end
    end

    # CPU seconds of the whole group so far, user and system, all threads: by the clock that the kernel keeps of another
    # process, which clock_getcpuclockid(3) would name like this.
    def cpu
      processes.sum { |pid| Process.clock_gettime((~pid << 3) | 2) }
    end

    # Yields a kept-alive connection to it.
    def connect(&block)
      Net::HTTP.new("127.0.0.1", @port, nil).start(&block)
    end

    # What the server calls while the block runs; nil, and the block is not run, where strace can't tell.
    def count_calls(&block)
      Tempfile.create("bench") do |counts|
        next unless trace(counts.path, &block)

        tally = counts.each_line.filter_map { |line| COUNT.match(line)&.captures&.reverse }.to_h
        Calls.new(*[READS, WRITES].map { |names| tally.values_at(*names).sum(&:to_i) })
      end
    end

    def stop
      Process.kill(:TERM, @pid) unless ended?
      deadline = Measure.now + STOP
      sleep(0.02) until ended? || Measure.now > deadline
    ensure
      kill_group
      @log.close!
    end

    private

    def reachable?
      TCPSocket.open("127.0.0.1", @port, &:close)
      true
    rescue Errno::ECONNREFUSED
      false
    end

    def ended?
      @ended ||= !Process.wait(@pid, Process::WNOHANG).nil?
    end

    def kill_group
      Process.kill(:KILL, -@pid)
      Process.wait(@pid) unless ended?
      sleep(0.02) until processes.empty?
    rescue Errno::ESRCH
      nil # nobody is left
    end

    def last_words
      File.readlines(@log.path, chomp: true).last.to_s
    end

    # Process ids of the group.
    def processes
      Dir["/proc/[0-9]*/stat"].filter_map do |path|
        path[/\d+/].to_i if File.read(path)[/.*\) \S+ \d+ (\d+)/m, 1].to_i == @pid
      rescue SystemCallError
        nil # it has ended
      end
    end

    # Runs the block once strace has attached to the whole group. Returns whether it has.
    def trace(path)
      said, theirs = IO.pipe
      pids = processes
      strace = Process.spawn("strace", "-f", "-c", "-o", path, *pids.flat_map { |pid| ["-p", pid.to_s] }, err: theirs)
      theirs.close
      return false unless pids.all? { said.each_line.any? { |line| line.include?("attached") } }

      sleep(SETTLE)
      yield
      true
    rescue Errno::ENOENT
      false
    ensure
      Process.kill(:INT, strace) && Process.wait(strace) if strace # it writes its counts now
      [said, theirs].each(&:close)
    end
  end
end
