# frozen_string_literal: true

# Descriptors that a call uses without the GVL: nobody else gets their number meanwhile, no duplicate of the source is
# made where it can be avoided, and nothing stays open: in this process, or in one that is forked meanwhile.

require "spec_helper"
require "fcntl"

RSpec.describe Hyperion::Http::Sendfile, "holding descriptors", needs: :extension do
  include Faults::Helpers

  def open?(number)
    File.exist?("/proc/self/fd/#{number}")
  end

  # What each descriptor stands for.
  def descriptors
    Dir.children("/proc/self/fd").filter_map do |fd|
      "#{fd} #{File.readlink("/proc/self/fd/#{fd}")}"
    rescue Errno::ENOENT
      nil # the one that this was listed by
    end
  end

  # A transfer of the file that waits for its reader.
  def stalled(file, size = 64 << 20)
    channel = channel(:unix, small: true)
    reader = channel.read(:stalled)
    sender = start_copy(:thread, channel.out, file, 0, size)
    await_backpressure(channel, sender)
    [sender, reader, channel]
  end

  describe "a POSIX record lock", needs: :linux do
    # Asked for by another process: this one's own locks are never in its way.
    def locked?(path)
      Faults.in_child do
        File.open(path, "r+") do |file|
          lock = [Fcntl::F_WRLCK, 0, 0, 0, 0].pack("ssx4qqix4")
          file.fcntl(Fcntl::F_GETLK, lock)
          lock.unpack1("s") != Fcntl::F_UNLCK
        end
      end
    end

    def lock(file)
      file.fcntl(Fcntl::F_SETLK, [Fcntl::F_WRLCK, 0, 0, 0, 0].pack("ssx4qqix4"))
    end

    {
      "copy_to_socket" => ->(out, file, size) { S.copy_to_socket(out, file, 0, size) },
      "copy" => ->(out, file, size) { S.copy(out, file, 0, size) },
      "copy_splice" => ->(out, file, size) { S.copy_splice(out, file, 0, size) },
      "copy_data_frames" => ->(out, file, size) { S.copy_data_frames(out, file, 0, size, stream_id: 1) }
    }.each do |name, send_it|
      [1_000, 300_000].each do |size|
        it "is kept by #{name} of #{size} bytes" do
          path = Payload.write("locked", "x" * size)
          file = Cleanup.close(File.open(path, "r+"))
          channel = channel(:unix)
          channel.read
          lock(file)
          expect { send_it.call(channel.out, file, size) }.not_to change { locked?(path) }.from(true)
        end
      end
    end

    it "is kept by a fiber that reads the file in, and by TLS", needs: :openssl do
      path = Payload.write("locked", "x" * 300_000)
      file = Cleanup.close(File.open(path, "r+"))
      channel = channel(:tls13)
      channel.read
      lock(file)
      start_under(:fiber_minimal) { S.copy_to_socket(channel.out, file) }.value
      expect(locked?(path)).to be(true)
    end
  end

  it "closes a source that was closed meanwhile at the end, however it ends, and no earlier" do
    endings = {
      done: ->(_, reader, _) { reader.go },
      killed: ->(sender, _, _) { sender.thread.kill },
      failed: ->(_, _, channel) { channel.peer.close }
    }
    endings.each_value do |ending|
      file = sparse_file(1 << 20)
      number = file.fileno
      sender, reader, channel = stalled(file, 1 << 20)
      file.close
      expect(open?(number)).to be(true)
      ending.call(sender, reader, channel)
      sender.error
      expect(open?(number)).to be(false)
    end
  end

  it "leaves a source that two transfers share to close by itself when the last has ended" do
    file = sparse_file(64 << 20)
    first, = stalled(file)
    second, = stalled(file)
    first.thread.kill
    first.error
    expect(file).not_to be_autoclose
    second.thread.kill
    second.error
    expect(file).to be_autoclose
    number = file.fileno
    file.close
    expect(open?(number)).to be(false)
  end

  it "sends on from a file that is closed without the GVL, and closes it at the end" do
    file = sparse_file(1 << 20)
    number = file.fileno
    sender, reader, = stalled(file, 1 << 20)
    S.const_get(:Native).close(file)
    reader.go
    expect(sender.value).to eq(1 << 20)
    expect(open?(number)).to be(false)
  end

  it "duplicates the descriptor of an IO that does not close it, whose owner may" do
    owner = sparse_file(64 << 20)
    number = owner.fileno
    file = File.for_fd(number, autoclose: false)
    before = Dir.children("/proc/self/fd").size
    sender, reader, channel = stalled(file)
    expect(file).not_to be_autoclose
    owner.close
    expect(open?(number)).to be(false)
    sender.thread.kill
    sender.error
    channel.finish
    reader.go.wait
    Cleanup.run
    expect(Dir.children("/proc/self/fd").size).to be < before
  end

  it "leaves a forked child neither descriptors of its transfers nor IO objects that never close", needs: :linux do
    kept = sparse_file(64 << 20)
    closed = sparse_file(64 << 20)
    number = closed.fileno
    duplicated = sparse_file(64 << 20)
    [kept, closed].each { |file| stalled(file) }
    with_splice(true) { stalled(duplicated.fileno) }
    pipes = descriptors.grep(/pipe/)
    closed.close
    told = Faults.in_child do
      sleep 0.01 until kept.autoclose?
      left = (pipes & descriptors).size
      [open?(number), left, kept.fileno.tap { kept.close }.then { |fd| open?(fd) }]
    end
    expect(told).to eq([false, pipes.size - 2, false])
    expect(kept).not_to be_autoclose
  end

  # Ruby lets interrupts in where a method that the extension calls returns, so another thread, or a signal handler,
  # may run there. Here it is the method itself that does what those may do.
  describe "and Ruby code that runs while they are taken hold of" do
    before do
      waiting = Thread.new { sleep }
      Cleanup.later { waiting.kill.join }
    end

    def sockets
      UNIXSocket.pair.each { |socket| Cleanup.close(socket) }
    end

    {
      "copy" => ->(out, file) { S.copy(out, file, 0, 1000) },
      "copy_small" => ->(out, file) { S.copy_small(out, file, 0, 1000) },
      "copy_to_socket" => ->(out, file) { S.copy_to_socket(out, file, 0, 300_000, timeout: 10) }
    }.each do |name, send_it|
      it "gives nothing of #{name} to whoever gets the number of a destination that is closed" do
        file = sparse_file(1 << 20)
        out = sockets.first
        others = []
        example = self
        file.define_singleton_method(:autoclose?) do
          super().tap do
            out.close
            others = example.sockets if others.empty?
          end
        end
        expect { send_it.call(out, file) }.to raise_error(IOError, /closed/)
        expect(others.map { |other| other.read_nonblock(1, exception: false) }).to eq(%i[wait_readable wait_readable])
      end

      it "leaves no descriptor of a source behind that is closed in #{name}" do
        file = sparse_file(1 << 20)
        number = file.fileno
        out = sockets.first
        file.define_singleton_method(:autoclose=) do |closes|
          super(closes)
          close unless closes || closed?
        end
        expect { send_it.call(out, file) }.to raise_error(IOError, /closed/)
        expect(open?(number)).to be(false)
      end
    end
  end

  # An interrupt can raise in a method of C that the extension calls. Here that is IO#timeout= of
  # Ruby 3.2, not that of a gem for older ones.
  it "tells its own block how much was sent, when what lets the source go raises", if: RUBY_VERSION >= "3.2" do
    waiting = Thread.new { sleep }
    Cleanup.later { waiting.kill.join }
    file = sparse_file(1 << 20)
    file.singleton_class.alias_method(:autoclose=, :timeout=)
    out = UNIXSocket.pair.each { |socket| Cleanup.close(socket) }.first
    told = nil
    expect { S.copy(out, file, 0, 1000) { |bytes| told = bytes } }.to raise_error(TypeError)
    expect(told).to eq(1000)
    file.singleton_class.remove_method(:autoclose=)
    file.autoclose = true
  end

  # What runs meanwhile may have got the buffer as the String that it was to write.
  it "keeps the memory that frames are read into" do
    frames = S.const_get(:Native)::Frames.new.set(nil, 0, 1000, 1, 16_384, 0, true)
    file = sparse_file(1000)
    buffer = +""
    file.define_singleton_method(:autoclose?) do
      buffer.clear
      super()
    end
    expect { frames.read(file, 0, 65_536, buffer) }.to raise_error(RuntimeError, /locked/)
    file.singleton_class.remove_method(:autoclose?)
    expect(frames.read(file, 0, 65_536, buffer).bytesize).to eq(1009)
  end

  it "is not mixed up with what takes the number of a splice's pipe", needs: :splice do
    script = <<~RUBY
      require "hyperion/http/sendfile"
      require "socket"
      out, peer = UNIXSocket.pair
      pipe_r, pipe_w = IO.pipe
      number = pipe_w.fileno
      file = File.open(ARGV[0])
      sender = Thread.new { Hyperion::Http::Sendfile.copy_splice_into_pipe(out, file, 0, 4321, pipe_r, pipe_w) rescue $! }
      sleep 0.01 until File.exist?(ARGV[1])
      pipe_w.close
      others = Array.new(40) { UNIXSocket.pair }.flatten
      sleep 1
      sender.join
      p others.filter_map { |socket| socket.read_nonblock(10_000, exception: false).then { |got| got.bytesize if got.is_a?(String) } }
    RUBY
    slow = <<~C
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <fcntl.h>
      #include <stdlib.h>
      #include <unistd.h>

      ssize_t
      splice(int in, off_t *from, int out, off_t *to, size_t length, unsigned flags)
      {
          static ssize_t (*real)(int, off_t *, int, off_t *, size_t, unsigned);
          const char *told = getenv("TOLD");

          if (!real) real = (ssize_t (*)(int, off_t *, int, off_t *, size_t, unsigned))dlsym(RTLD_NEXT, "splice");
          if (from && told) {
              close(open(told, O_CREAT | O_WRONLY, 0600));
              usleep(500 * 1000);
          }
          return real(in, from, out, to, length, flags);
      }
    C
    told = File.join(Payload.dir, "told-#{Process.pid}")
    output = Interposed.run("slow_splice", slow, script, Payload.write("small", "s" * 4321), told, TOLD: told)
    expect(output).to eq("[]\n")
  end

  # Where closing waits (FUSE, NFS, SO_LINGER), others go on: the heart beats while a duplicate is closed.
  it "closes without the GVL, and without a lock that other transfers need", needs: :linux do
    slow = <<~C
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <stdlib.h>
      #include <sys/stat.h>
      #include <time.h>
      #include <unistd.h>

      int
      close(int fd)
      {
          static int (*real)(int);
          struct stat st;

          if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "close");
          if (getenv("SLOW") && fstat(fd, &st) == 0 && st.st_size == 4321) {
              struct timespec till;

              real(fd);
              clock_gettime(CLOCK_MONOTONIC, &till);
              till.tv_sec += 2;
              while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &till, NULL) != 0)
                  continue;
              return 0;
          }
          return real(fd);
      }
    C
    script = <<~RUBY
      require "hyperion/http/sendfile"
      require "socket"
      S = Hyperion::Http::Sendfile
      now = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
      file = File.open(ARGV[0])
      other = File.open(ARGV[1])
      (a, b), (c, d) = Array.new(2) { UNIXSocket.pair }
      Thread.new { d.read }
      ENV["SLOW"] = "1"
      sender = Thread.new { S.copy_small(a, file.fileno, 0, 4321) }
      sender.kill if ARGV[2] == "kill" && sleep(0.1)
      count = 0
      until sender.join(0)
        S.copy_small(c, other.fileno, 0, 1000)
        count += 1
        sleep 0.01
      end
      puts count, Dir.children("/proc/self/fd").count { |fd| File.stat("/proc/self/fd/\#{fd}").size == 4321 rescue false }
    RUBY
    ["", "kill"].each do |how|
      count, open = Interposed.run("slow_close", slow, script, Payload.write("slow", "s" * 4321),
                                   Payload.write("quick", "q" * 1000), how).lines.map(&:to_i)
      expect(count).to be > 10
      expect(open).to eq(1)
    end
  end
end
