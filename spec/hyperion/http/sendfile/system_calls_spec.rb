# frozen_string_literal: true

# What one call costs: the system calls of a plain thread that sends a cached file, by strace(1).

require "spec_helper"
require "open3"

strace = system("strace", "-o", File::NULL, "true", %i[out err] => File::NULL)

RSpec.describe Hyperion::Http::Sendfile, "system calls", if: RUBY_VERSION >= "3.2", needs: %i[extension linux] do
  script = <<~RUBY
    require "hyperion/http/sendfile"
    require "socket"

    path, size, timeout, threads = ARGV
    size = size.to_i
    options = timeout.empty? ? {} : { timeout: timeout.to_f }
    other = Thread.new { sleep } if threads == "2"
    file = File.open(path, "rb")
    server = TCPServer.new("127.0.0.1", 0)
    peer = Socket.new(:INET, :STREAM)
    peer.setsockopt(:SOCKET, :RCVBUF, 4 << 20)
    peer.connect(server.local_address)
    out = server.accept
    out.setsockopt(:SOCKET, :SNDBUF, 4 << 20)
    send_it = -> { Hyperion::Http::Sendfile.copy_to_socket(out, file, 0, size, **options) }
    2.times { send_it.call && peer.read(size) }
    $stderr.syswrite("begin")
    send_it.call
    $stderr.syswrite("end")
  RUBY

  # Of the main thread, between the two writes; futex is what threads of Ruby tell each other by, brk asks for memory.
  define_method(:calls) do |size, timeout, threads|
    ruby = [RbConfig.ruby, "-W0", *$LOAD_PATH.flat_map { |path| ["-I", path] }]
    log = File.join(Payload.dir, "strace")
    Open3.capture2e("strace", "-o", log, *ruby, "-e", script, Payload.path(size), size.to_s, timeout, threads.to_s)
    lines = File.readlines(log).grep(/\A\w+\(/)
    from, till = %w[begin end].map { |word| lines.index { |line| line.start_with?("write(2, \"#{word}\"") } }
    lines[(from + 1)...till].map { |line| line[/\A\w+/] } - %w[futex brk]
  end

  {
    [8_192, ""] => %w[pread64 sendto ioctl],
    [262_144, ""] => %w[fadvise64 fcntl rt_sigaction sendfile ioctl],
    [262_144, "5"] => %w[fadvise64 fcntl rt_sigaction gettid timer_create timer_settime sendfile timer_delete ioctl]
  }.each do |(size, timeout), expected|
    [1, 2].each do |threads|
      it "are these few for #{size} bytes (timeout: #{timeout.inspect}, threads: #{threads})" do
        skip "no strace" unless strace
        expect(calls(size, timeout, threads)).to eq(expected)
      end
    end
  end
end
