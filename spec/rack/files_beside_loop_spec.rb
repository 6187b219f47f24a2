# frozen_string_literal: true

# What opens or reads a file may wait for a disk, a server, or a scanner; nobody else waits with it.
require "hyperion/http/sendfile/rack"
require_relative "../support/interposed"

RSpec.describe S::Files, needs: :extension do
  let(:dir) { Dir.mktmpdir.tap { |dir| Cleanup.later { FileUtils.rm_rf(dir) } } }
  let(:native) { S.const_get(:Native) }

  def get(app, path, **env)
    status, _, body = app.call({ "REQUEST_METHOD" => "GET", "PATH_INFO" => path, **env.transform_keys(&:to_s) })
    content = +"".b
    body.each { |chunk| content << chunk }
    body.close if body.respond_to?(:close)
    [status, content]
  end

  # The threads that the block reads by.
  def readers
    by = []
    trace = TracePoint.new(:c_call) { |call| by << Thread.current if call.method_id == :pread }
    trace.enable
    yield
    by.uniq
  ensure
    trace.disable
  end

  describe "in an event loop", needs: %i[extension schedulers] do
    it "reads what is not in the page cache by another thread" do
      File.binwrite("#{dir}/file", payload(100_000))
      allow(native).to receive(:resident?).and_return(false)
      loop_thread = answers = nil
      by = readers do
        start_under(:fiber_async) do
          loop_thread = Thread.current
          app = described_class.new(dir)
          answers = [get(app, "/file"), get(app, "/file", HTTP_RANGE: "bytes=5-999")]
        end.value
      end
      expect(answers).to eq([[200, payload(100_000)], [206, payload(100_000).byteslice(5..999)]])
      expect(by).not_to be_empty
      expect(by).not_to include(loop_thread)
    end

    it "reads what is in the page cache by itself" do
      File.binwrite("#{dir}/file", payload(100_000))
      allow(native).to receive(:resident?).and_return(true)
      loop_thread = nil
      by = readers do
        start_under(:fiber_async) { get(described_class.new(dir), "/file").tap { loop_thread = Thread.current } }.value
      end
      expect(by).to eq([loop_thread])
    end

    it "opens by itself only what it has opened quickly before, and what has not changed" do
      File.binwrite("#{dir}/file", "old")
      beside = 0
      allow(native).to(receive(:open_below).and_wrap_original do |original, *path|
        original.call(*path).tap do
          beside += 1
        end
      end)
      start_under(:fiber_async) do
        app = described_class.new(dir)
        eventually("it was opened quickly") do
          before = beside
          expect(get(app, "/file")).to eq([200, "old"])
          beside == before
        end
        before = beside
        File.binwrite("#{dir}/new", "new!")
        File.rename("#{dir}/new", "#{dir}/file")
        expect(get(app, "/file")).to eq([200, "new!"])
        expect(beside).to eq(before + 1)
      end.value
    end
  end

  # open(2) itself takes so many turns of somebody else, who tells by a byte each. Where none comes in 2 seconds, all
  # stand still.
  slow_open = <<~C
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <linux/openat2.h>
    #include <poll.h>
    #include <stdarg.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    long
    syscall(long number, ...)
    {
        static long (*real)(long, ...);
        long a[6];
        va_list list;

        if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
        va_start(list, number);
        for (int i = 0; i < 6; i++)
            a[i] = va_arg(list, long);
        va_end(list);
        if (number == SYS_openat2 && getenv("BEATS") && !(((struct open_how *)a[2])->flags & O_PATH)) {
            struct pollfd beats = {.fd = atoi(getenv("BEATS")), .events = POLLIN};
            char byte;

            for (int i = 0; i < 20; i++) {
                if (poll(&beats, 1, 2000) != 1) {
                    if (write(1, "stood still\\n", 12) < 0) abort();
                    break;
                }
                if (read(beats.fd, &byte, 1) < 0) abort();
            }
        }
        return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
  C

  script = <<~RUBY
    require "hyperion/http/sendfile/rack"
    require "async"
    require "io/stream" unless IO.method_defined?(:timeout) # Ruby 3.1

    app = Hyperion::Http::Sendfile::Files.new(ARGV.fetch(0))
    beats, beat = IO.pipe
    ENV["BEATS"] = beats.fileno.to_s
    get = -> { app.call({ "REQUEST_METHOD" => "GET", "PATH_INFO" => "/file" }).last.sum("") }
    if ARGV.fetch(1) == "thread"
      Thread.new { loop { sleep 0.001 and beat.write(".") } }
      3.times { puts get.call }
    else
      Sync do |task|
        beating = task.async { loop { sleep 0.001 and beat.write(".") } }
        3.times { puts get.call }
        beating.stop
      end
    end
  RUBY

  %w[thread fiber].each do |waiter|
    it "lets others run while a file is opened (#{waiter})", if: Interposed.available?, needs: %i[extension linux] do
      File.binwrite("#{dir}/file", "content")
      output = Interposed.run("slow_open", slow_open, script, dir, waiter)
      expect(output.lines.map(&:chomp)).to eq(["content"] * 3)
    end
  end

  it "leaves no file open when its thread is killed meanwhile", if: Interposed.available?, needs: %i[extension linux] do
    File.binwrite("#{dir}/file", payload(100_000))
    output = Interposed.run("slow_open", slow_open, <<~RUBY, dir)
      require "hyperion/http/sendfile/rack"

      app = Hyperion::Http::Sendfile::Files.new(ARGV.fetch(0))
      beats, beat = IO.pipe
      ENV["BEATS"] = beats.fileno.to_s
      GC.disable
      beat.write(".")
      thread = Thread.new { app.call({ "REQUEST_METHOD" => "GET", "PATH_INFO" => "/file" }) }
      sleep 0.001 while beats.wait_readable(0) # and then it opens
      thread.kill.join # ends its waiting for beats, and the file is opened
      puts Dir["/proc/self/fd/*"].count { |descriptor| File.identical?(descriptor, File.join(ARGV.fetch(0), "file")) }
    RUBY
    expect(output.lines.map(&:chomp)).to eq(["stood still", "0"])
  end

  # Closing a file takes so many turns of somebody else, too, as if a server had to be told.
  slow_close = <<~C
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <poll.h>
    #include <stdlib.h>
    #include <sys/stat.h>
    #include <unistd.h>

    static void
    be_slow(int fd)
    {
        struct stat is;
        char byte;

        if (!getenv("BEATS") || fstat(fd, &is) < 0 || is.st_ino != strtoull(getenv("INODE"), NULL, 10)) return;
        for (int i = 0; i < 20; i++) {
            struct pollfd beats = {.fd = atoi(getenv("BEATS")), .events = POLLIN};

            if (poll(&beats, 1, 2000) != 1) {
                if (write(1, "stood still\\n", 12) < 0) abort();
                break;
            }
            if (read(beats.fd, &byte, 1) < 0) abort();
        }
    }

    int
    close(int fd)
    {
        be_slow(fd);
        return ((int (*)(int))dlsym(RTLD_NEXT, "close"))(fd);
    }

    int
    dup2(int from, int to)
    {
        be_slow(to);
        return ((int (*)(int, int))dlsym(RTLD_NEXT, "dup2"))(from, to);
    }
  C

  closing = <<~RUBY
    require "hyperion/http/sendfile/rack"

    S = Hyperion::Http::Sendfile
    # As on the file system of a server.
    S.const_get(:Native).singleton_class.prepend(Module.new { def tells_resident?(*) = false })
    path = ARGV.fetch(0)
    ENV["INODE"] = File.stat(path).ino.to_s
    beats, beat = IO.pipe
    ENV["BEATS"] = beats.fileno.to_s
    Thread.new { loop { sleep 0.001 and beat.write(".") } }
    _, _, body = S::Files.new(nil).serving({ "REQUEST_METHOD" => "GET" }, path)
    read = 0
    body.each { |chunk| read += chunk.bytesize }
    puts read
    $stdout.flush
    exit!(true)
  RUBY

  [0, 5, 100_000].each do |size|
    it "lets others run while a file is closed (#{size} bytes)", if: Interposed.available?, needs: :linux do
      File.binwrite("#{dir}/file", payload(size))
      expect(Interposed.run("slow_close", slow_close, closing, "#{dir}/file")).to eq("#{size}\n")
    end
  end
end
