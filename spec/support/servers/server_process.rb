# frozen_string_literal: true

# A server as a process of its own, with the app of run.rb.
require "socket"
require "tmpdir"
require_relative "../eventually"

class ServerProcess
  RUN = File.join(__dir__, "run.rb")
  LIB = File.expand_path("../../../lib", __dir__)
  HOST = "127.0.0.1"

  attr_reader :port, :pid

  # @param command [Array<String>] of Ruby's arguments; PORT stands for the port
  # @param environment [Hash{String => String}]
  def self.command(*command, environment: {})
    new(command, environment)
  end

  # @param prelude [String, nil] a Ruby file that the process requires first
  def self.start(name, root, prelude: nil, environment: {})
    new([RUN, name, "PORT", root, *prelude], environment)
  end

  def initialize(command, environment)
    @port = free_port
    @log = File.join(Dir.mktmpdir("hyperion-sendfile-server"), "log")
    command = command.map { |argument| argument.sub("PORT", @port.to_s) }
    @pid = spawn(environment, Gem.ruby, "-I#{LIB}", *command, in: File::NULL, %i[out err] => @log, pgroup: true)
    at_exit { stop }
    wait_until_it_listens
  end

  def connect(receive_buffer: nil)
    socket = Socket.new(:INET, :STREAM)
    socket.setsockopt(:SOCKET, :RCVBUF, receive_buffer) if receive_buffer # has to be said before connecting
    socket.connect(Addrinfo.tcp(HOST, port))
    socket
  end

  # @return [Array<Integer>] the process and those below it
  def pids
    found = [@pid]
    found.each { |pid| found.concat(children(pid)) }
  end

  # What the server has open of connections and of the file at that path.
  def open_for(path)
    pids.flat_map { |pid| descriptors(pid) }.count { |target| target.start_with?(path) } + connections
  end

  def log
    File.read(@log)
  end

  def stop
    return unless @pid

    Process.kill(:TERM, @pid)
    Eventually.until("the server's end", within: 10, every: 0.02) { Process.wait(@pid, Process::WNOHANG) }
  rescue Eventually::NeverHappened
    Process.kill(:KILL, -@pid)
    Process.wait(@pid)
  ensure
    @pid = nil
    FileUtils.rm_rf(File.dirname(@log))
  end

  # It is not there any more, and has been waited for.
  def ended
    @pid = nil
  end

  private

  def free_port
    TCPServer.open(HOST, 0) { |server| server.local_address.ip_port }
  end

  def wait_until_it_listens
    Eventually.until("the server", within: 30, every: 0.05) do
      raise "the server ended: #{log}" if Process.wait(@pid, Process::WNOHANG)

      connect.close
      true
    rescue Errno::ECONNREFUSED
      false
    end
  end

  def children(pid)
    Dir.glob("/proc/#{pid}/task/*/children").flat_map { |list| File.read(list).split.map(&:to_i) }
  rescue SystemCallError
    []
  end

  def descriptors(pid)
    Dir.glob("/proc/#{pid}/fd/*").filter_map do |fd|
      File.readlink(fd)
    rescue SystemCallError
      nil # closed meanwhile
    end
  end

  # Established, or half closed, at this end.
  def connections
    inodes = File.readlines("/proc/net/tcp").drop(1).filter_map do |line|
      local, state, inode = line.split.values_at(1, 3, 9)
      inode if local.end_with?(format(":%04X", port)) && %w[01 08].include?(state)
    end
    pids.flat_map { |pid| descriptors(pid) }.count { |target| inodes.include?(target[/\Asocket:\[(\d+)\]\z/, 1]) }
  end
end
