# frozen_string_literal: true

# A system call that waits where none was to wait: O_NONBLOCK belongs to the description, which others may share, and
# another writer may take the room of a pipe after poll. timeout: ends it, and so do Thread#kill, Timeout and signals.

require "spec_helper"
require "io/nonblock"

RSpec.describe Hyperion::Http::Sendfile, "in a system call that waits", needs: :linux do
  include Faults::Helpers

  # fcntl(2) says O_NONBLOCK of what is in blocking mode, and poll(2) that there is room: what another process makes
  # true between such a call and the next.
  liar = <<~C
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <stdarg.h>
    #include <stdlib.h>

    static int
    told(int (*real)(int, int, ...), int fd, int command, void *argument)
    {
        int answer = real(fd, command, argument);
        const char *lies = getenv("LIES");

        return command == F_GETFL && lies && atoi(lies) == fd ? answer | O_NONBLOCK : answer;
    }

    #define FCNTL(name)                                                              \\
        int                                                                          \\
        name(int fd, int command, ...)                                               \\
        {                                                                            \\
            va_list arguments;                                                       \\
            void *argument;                                                          \\
                                                                                     \\
            va_start(arguments, command);                                            \\
            argument = va_arg(arguments, void *);                                    \\
            va_end(arguments);                                                       \\
            return told((int (*)(int, int, ...))dlsym(RTLD_NEXT, #name), fd, command, argument); \\
        }
    FCNTL(fcntl)
    FCNTL(fcntl64)

    int
    poll(struct pollfd *fds, nfds_t count, int timeout)
    {
        static int (*real)(struct pollfd *, nfds_t, int);
        const char *lies = getenv("ROOM");

        if (!real) real = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
        if (count == 1 && timeout == 0 && lies && atoi(lies) == fds->fd) {
            unsetenv("ROOM");
            fds->revents = fds->events;
            return 1;
        }
        return real(fds, count, timeout);
    }
  C

  script = <<~RUBY
    require "hyperion/http/sendfile"
    require "io/nonblock"
    require "socket"

    S = Hyperion::Http::Sendfile
    $stdout.sync = true
    kind, ending, path = ARGV
    peer, out = kind == "pipe" ? IO.pipe : UNIXSocket.pair
    out.nonblock = false
    if kind == "pipe"
      ENV["ROOM"] = out.fileno.to_s
      out.write("x" * 65_536) # no room is left
    else
      ENV["LIES"] = out.fileno.to_s
    end
    file = File.open(path, "rb")
    now = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
    totals = [0]
    options = ending == "timeout:" ? { timeout: 0.5 } : {}
    sender = Thread.new do
      Thread.current.report_on_exception = false
      S.copy_to_socket(out, file, 0, 8 << 20, **options) { |sent| totals << sent }
    end
    sleep 0.5 unless ending == "timeout:" # to be in the call by then, mostly
    begun = now.call
    ending == "kill" ? sender.kill : (sender.raise(IOError, "midway") if ending == "raise")
    how = begin
      sender.join(20) ? (sender.value; "ended") : "still there"
    rescue StandardError => e
      e.class.name
    end
    puts how, (now.call - begun), totals.last
    got = peer.read_nonblock(10 << 20, exception: false)
    puts got.is_a?(String) ? got.bytesize : 0
    exit!(true)
  RUBY

  { "socket" => "a sendfile to a socket", "pipe" => "a write to a pipe" }.each do |kind, what|
    {
      "timeout:" => "Hyperion::Http::Sendfile::TimeoutError",
      "kill" => "ended",
      "raise" => "IOError"
    }.each do |ending, expected|
      it "ends #{what} by #{ending}" do
        how, took, told, got = Interposed.run("liar", liar, script, kind, ending, payload_file(8 << 20).path).lines
        expect(how.chomp).to eq(expected)
        expect(took.to_f).to be < 5
        expect(told.to_i).to eq(got.to_i) unless kind == "pipe"
      end
    end
  end

  # The time that a read takes, and after an interruption takes again (direct I/O of FUSE).
  it "lets a source that is slower than the timeout, and begins anew when it is interrupted, get to its end" do
    slow = <<~C
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <sys/sendfile.h>
      #include <time.h>

      static ssize_t
      late(const char *name, int out, int in, off_t *offset, size_t count)
      {
          static int done;
          struct timespec second = {.tv_sec = 1};

          if (!done && nanosleep(&second, NULL) < 0) return -1;
          done = 1;
          return ((ssize_t (*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, name))(out, in, offset, count);
      }

      ssize_t sendfile(int out, int in, off_t *offset, size_t count) { return late("sendfile", out, in, offset, count); }
      ssize_t sendfile64(int out, int in, off_t *offset, size_t count) { return late("sendfile64", out, in, offset, count); }
    C
    sending = <<~RUBY
      require "hyperion/http/sendfile"
      require "socket"
      S = Hyperion::Http::Sendfile
      out, peer = UNIXSocket.pair
      file = File.open(ARGV[0])
      Thread.new { S.copy_to_socket(out, file, 0, 100_000, timeout: 0.3) && out.close }
      puts peer.wait_readable(20) ? peer.read.bytesize : "nothing"
      $stdout.flush
      exit!(true)
    RUBY
    expect(Interposed.run("slow_sendfile", slow, sending, payload_file(100_000).path)).to eq("100000\n")
  end

  # Nobody lies here: the mode changes while the transfer waits for room.
  %i[tcp unix].each do |kind|
    it "keeps its timeout when O_NONBLOCK is turned off in a wait (#{kind})" do
      channel = channel(kind, small: true)
      reader = channel.read(:stalled)
      sender = start_copy(:thread, channel.out, sparse_file(64 << 20), 0, 64 << 20, timeout: 1.5)
      await_backpressure(channel, sender)
      channel.out.nonblock = false
      channel.peer.readpartial(65_536)
      expect(sender.error(within: 30)).to be_a(S::TimeoutError)
      channel.finish
      reader.go.wait
    end
  end
end
