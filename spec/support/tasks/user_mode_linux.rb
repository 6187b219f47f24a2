# frozen_string_literal: true

# Runs a command of the checkout in user-mode-linux for the Rakefile: a kernel with kernel TLS that is an ordinary
# program, and needs no virtualization. It sees the files of this machine, read-only. What happens before the guest's
# first line is this machine's fault, and skipped; what happens after it is a failure.

require "io/wait"
require "rbconfig"
require "shellwords"
require "tmpdir"

class UserModeLinux
  MEMORY = 512 # MiB
  KERNEL = "linux.uml"
  MODULES = "/usr/lib/uml/modules"
  NEEDS = { "user-mode-linux" => KERNEL, "kmod" => "modprobe", "iproute2" => "ip" }.freeze
  PATH = "#{ENV.fetch("PATH", "")}:/usr/sbin:/sbin".freeze
  FILES = File.expand_path("../uml", __dir__)

  # There is no guest to be had here, for this reason.
  class Unavailable < StandardError; end

  # Runs the command, passes on what it prints, and raises unless it succeeds within +limit+ seconds. Where there is
  # no guest to be had it says so, which is all it does.
  def self.run(*command, limit:, directory: Dir.pwd)
    new(command, limit, directory).run
  rescue Unavailable => e
    puts "*" * 78, "SKIPPED, NOT PASSED: #{e.message}", "*" * 78
  end

  def initialize(command, limit, directory)
    @command = command
    @limit = limit
    @directory = directory
  end

  def run
    check_machine
    Dir.mktmpdir("uml") do |scratch|
      @scratch = scratch
      Dir.mkdir(File.join(scratch, "tmp"))
      write_command
      boot
    end
    judge
  end

  private

  def check_machine
    unless RbConfig::CONFIG.values_at("host_os", "host_cpu").then { |os, cpu| os =~ /linux/ && cpu == "x86_64" }
      raise Unavailable, "user-mode-linux runs on x86-64 Linux"
    end

    missing = NEEDS.reject { |_, name| executable(name) }.keys
    raise Unavailable, "not installed: #{missing.join(", ")}" unless missing.empty?
    raise Unavailable, "/dev/shm has no #{MEMORY} MiB free for the guest's memory" unless room_for_memory?
  end

  def executable(name)
    PATH.split(":").map { |folder| File.join(folder, name) }.find { |path| File.executable?(path) }
  end

  def room_for_memory?
    available = IO.popen(%w[df --output=avail -k /dev/shm], err: File::NULL, &:read)[/\d+/]
    available.nil? || available.to_i >= MEMORY * 1024
  end

  # The environment of this process is the bundle's, which the guest's is not.
  def write_command
    kept = ENV.select { |name, _| name.match?(/\A(?:BUNDLE|BUNDLER|GEM|RUBY|LANG|LC_|SPEC)/) || name == "HOME" }
    exports = kept.map { |name, value| "export #{name}=#{value.shellescape}" }
    path = File.join(@scratch, "command")
    File.write(path, ["#!/bin/sh", *exports, "cd #{@directory.shellescape} && exec #{@command.shelljoin}"].join("\n"))
    File.chmod(0o755, path)
  end

  # The guest's processes are ours, all of one group.
  def boot
    console, console_w = IO.pipe
    pid = Process.spawn({ "LD_PRELOAD" => xstate }, *kernel_command, in: File::NULL, %i[out err] => console_w,
                                                                     pgroup: true)
    console_w.close
    @killed = !follow(console)
  ensure
    console&.close
    end_group(pid) if pid
  end

  def kernel_command
    [executable(KERNEL), "mem=#{MEMORY}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
     "con=null", "con0=null,fd:1", "uml_dir=#{@scratch}", "init=#{File.join(FILES, "init")}", "SCRATCH=#{@scratch}",
     "COMMAND=#{File.join(@scratch, "command")}", "MODULES=#{Dir.glob("#{MODULES}/*").max}"]
  end

  def xstate
    File.join(@scratch, "xstate.so").tap do |library|
      source = File.join(FILES, "xstate.c")
      compiled = system("cc", "-std=gnu11", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-o", library, source)
      raise "can't compile #{source}" unless compiled
    end
  end

  # Returns false when the time was over before the guest's console was.
  def follow(console)
    deadline = now + @limit
    @seen = []
    rest = +""
    while console.wait_readable([deadline - now, 0].max)
      rest << console.readpartial(65_536)
      while (line = rest.slice!(/\A.*\n/))
        take(line.chomp)
      end
    end
    false
  rescue EOFError
    true
  end

  def take(line)
    @seen << line
    @up ||= line.start_with?("guest: ")
    puts line if @up
    @exit = line[/\Aguest: exit (\d+)/, 1]&.to_i || @exit
  end

  def end_group(pid)
    Process.kill(:KILL, -pid)
    Process.waitpid(pid)
  rescue Errno::ESRCH
    Process.waitpid(pid)
  end

  def judge
    tail = @seen.last(25).join("\n")
    raise Unavailable, "user-mode-linux does not come up here:\n#{tail}" unless @up
    raise "the guest was still running after #{@limit} s, and was killed" if @killed
    raise Unavailable, "this user-mode-linux has no kernel TLS" if @seen.include?("guest: has no kernel TLS")
    raise "the guest went down with the command still running" unless @exit
    raise "the command ended with status #{@exit} in the guest" unless @exit.zero?
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
