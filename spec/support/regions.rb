# frozen_string_literal: true

require_relative "interposed"

# How often the library gives up the GVL: every call of the two functions that do it sends a byte.
module Regions
  INTERPOSER = <<~C
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    #include <unistd.h>

    static void
    tell(void)
    {
        const char *fd = getenv("REGIONS");

        if (fd && write(atoi(fd), ".", 1) < 0) abort();
    }

    void *
    rb_thread_io_blocking_region(void *func, void *data, void *fd)
    {
        static void *(*real)(void *, void *, void *);
        if (!real) real = (void *(*)(void *, void *, void *))dlsym(RTLD_NEXT, "rb_thread_io_blocking_region");
        tell();
        return real(func, data, fd);
    }

    void *
    rb_nogvl(void *func, void *data, void *ubf, void *ubf_data, int flags)
    {
        static void *(*real)(void *, void *, void *, void *, int);
        if (!real) real = (void *(*)(void *, void *, void *, void *, int))dlsym(RTLD_NEXT, "rb_nogvl");
        tell();
        return real(func, data, ubf, ubf_data, flags);
    }
  C

  # Sends to a reader in another process, through buffers that fill up all the time.
  SCRIPT = <<~RUBY
    require "hyperion/http/sendfile"
    require "io/nonblock"
    require "socket"

    file = File.open(ARGV.fetch(0), "rb")
    told, tell = IO.pipe
    tell.nonblock = false
    { tcp: true, blocking: false }.each do |name, nonblock|
      [1_000, 8_192, 65_536, 65_537, 262_144, 10 << 20].product([nil, "head"], %i[copy_to_socket copy_to_socket_blocking])
                                                       .each do |size, head, call|
        listener = TCPServer.new("127.0.0.1", 0)
        peer = TCPSocket.new("127.0.0.1", listener.local_address.ip_port)
        out = listener.accept
        out.setsockopt(:SOCKET, :SNDBUF, 65_536)
        out.nonblock = nonblock
        reader = fork do
          out.close
          sleep 0.001 while peer.readpartial(65_536)
        rescue EOFError
          exit!(true)
        end
        ENV["REGIONS"] = tell.fileno.to_s
        Hyperion::Http::Sendfile.public_send(call, out, file, 0, size, head: head)
        ENV.delete("REGIONS")
        out.close
        Process.kill(:KILL, reader)
        Process.wait(reader)
        tell.write("\\n")
        puts [name, size, head.inspect, call, told.gets.chomp.size].join(" ")
      end
    end
  RUBY

  # { "destination size head call" => how often the GVL was given up }
  def self.counts(path, **environment)
    output = Interposed.run("regions", INTERPOSER, SCRIPT, path, **environment)
    output.lines.to_h { |line| line.chomp.rpartition(" ").then { |what, _, count| [what, count.to_i] } }
  end

  # Needs a libruby to interpose upon.
  def self.available?
    RbConfig::CONFIG["ENABLE_SHARED"] == "yes" && Interposed.available?
  end
end
