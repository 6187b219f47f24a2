# frozen_string_literal: true

require "digest"
require "tempfile"

# The other end of a connection: drains it in a thread, or in a child process (process: true) where what the
# reader costs must not count for the sender.
#
# Modes: :greedy; :slow, 8 KiB at a time with pauses for the first +slow_for+ bytes; :stalled, which reads nothing;
# :trickle, one byte every 0.2 s. +go+ changes the mode at any time; +stall_after+ stalls by itself at a byte.
class Reader
  COMMANDS = { greedy: "g", slow: "s", stalled: "p", trickle: "t", close: "c", reset: "r" }.freeze

  # What reads; lives in the reader's thread or process, and is told what to do through a pipe.
  class Drain
    PACE = { greedy: [65_536, 0], slow: [8_192, 0.002], trickle: [1, 0.2] }.freeze
    RESET = [1, 0].pack("ii").freeze # linger on, for no time: close sends RST

    attr_reader :bytes, :error

    def initialize(io, mode, control, slow_for: 131_072, stall_after: nil, &sink)
      @io = io
      @wire = io.to_io
      @mode = mode
      @control = control
      @slow_for = slow_for
      @stall_after = stall_after
      @sink = sink
      @bytes = 0
      @open = true
    end

    def run
      obey
      while @open
        step
        obey
      end
    rescue EOFError, SystemCallError, OpenSSL::SSL::SSLError => e
      @error = e
    end

    private

    def obey
      command = @control.read_nonblock(1, exception: false)
      case command
      when :wait_readable, nil then nil
      when "c" then hang_up
      when "r" then reset
      else
        @mode = COMMANDS.key(command)
        @stall_after = nil
      end
    end

    def step
      return pause(nil) if @mode == :stalled

      size, gap = PACE.fetch(@mode)
      size = [size, @stall_after - @bytes].min if @stall_after
      case chunk = @io.read_nonblock(size, exception: false)
      when :wait_readable then IO.select([@wire, @control])
      when :wait_writable then IO.select([@control], [@wire])
      when nil then @open = false
      else take(chunk, gap)
      end
    end

    def take(chunk, gap)
      @sink.call(chunk)
      @bytes += chunk.bytesize
      @mode = :stalled if @bytes == @stall_after
      @mode = :greedy if @mode == :slow && @bytes >= @slow_for
      pause(gap) if gap.positive?
    end

    def pause(seconds)
      @control.wait_readable(seconds)
    end

    # On the wire, not through TLS: a peer that hangs up says no goodbye.
    def hang_up
      @open = false
      @wire.close
    end

    def reset
      @wire.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, RESET) unless @wire.is_a?(UNIXSocket) # which knows none
      hang_up
    end
  end

  # Drains in a thread of this process.
  class InThread < Reader
    def initialize(io, mode, **options)
      super()
      @chunks = []
      @drain = Drain.new(io, mode, @control, **options) { |chunk| @chunks << chunk }
      @thread = Thread.new { @drain.run }
      Cleanup.later { @thread.kill.join }
    end

    def bytes
      @drain.bytes
    end

    def error
      @drain.error
    end

    private

    def join(limit)
      @thread.join(limit)
    end

    def content
      @chunks.join
    end
  end

  # Drains in a child, which hands its bytes over in a file and its count in another.
  class InProcess < Reader
    def initialize(io, mode, keep: true, **options)
      super()
      @kept = tempfile if keep
      @count = tempfile
      @report, report_w = IO.pipe
      Cleanup.close(@report)
      @pid = fork { child(io, mode, report_w, options) }
      Cleanup.later { kill }
      report_w.close
      io.to_io.close # the child's alone now, or a reset there would reach nobody
    end

    def bytes
      @count.pread(8, 0).unpack1("Q")
    end

    def sha256
      summary[:sha256]
    end

    def error
      summary[:error]
    end

    private

    def tempfile
      Tempfile.create("reader").tap do |file|
        File.delete(file.path)
        file.binmode
        file.pwrite([0].pack("Q"), 0)
        Cleanup.close(file)
      end
    end

    def child(io, mode, report, options)
      close_all_but(io.to_io, @control, @kept, @count, report)
      digest = Digest::SHA256.new
      drain = drain_into(digest, io, mode, options)
      report.write(Marshal.dump(sha256: digest.hexdigest, error: drain.error&.exception(drain.error.message)))
      report.close
    ensure
      exit!(true) # no at_exit handler of the suite's
    end

    def drain_into(digest, io, mode, options)
      total = 0
      drain = Drain.new(io, mode, @control, **options) do |chunk|
        @kept&.pwrite(chunk, total)
        digest << chunk
        @count.pwrite([total += chunk.bytesize].pack("Q"), 0)
      end
      drain.tap(&:run)
    end

    # A child that held the sender's end open would never see the end of the stream.
    def close_all_but(*kept)
      kept = kept.compact.map(&:fileno) + [0, 1, 2]
      ObjectSpace.each_object(IO) { |io| io.close unless io.closed? || kept.include?(io.fileno) }
    end

    def join(limit)
      return true if @waited

      Eventually.until("the reader's process", within: limit) { Process.waitpid(@pid, Process::WNOHANG) }
      @waited = true
    rescue Eventually::NeverHappened
      nil
    end

    def kill
      return if @waited

      Process.kill(:KILL, @pid)
      Process.waitpid(@pid)
      @waited = true
    end

    def summary
      @summary ||= wait && Marshal.load(@report.read) # rubocop:disable Security/MarshalLoad -- our own child
    end

    def content
      @kept.pread(bytes, 0)
    end
  end

  # What memory received needs no draining.
  class Memory
    attr_reader :error

    def initialize(sink)
      @sink = sink
    end

    def result
      @sink.string
    end

    def bytes
      @sink.string.bytesize
    end

    def go(_mode = :greedy) = self

    def wait(**) = self
  end

  def self.start(io, mode, process: false, **options)
    (process ? InProcess : InThread).new(io, mode, **options)
  end

  def initialize
    @control, @commands = IO.pipe.each { |io| Cleanup.close(io) }
  end

  # Everything received, once the sender has ended the stream.
  def result(within: 25)
    wait(within: within)
    content
  end

  def sha256
    Digest::SHA256.hexdigest(result)
  end

  # Until the reader has come to the end of the stream, or has closed.
  def wait(within: 25)
    raise Eventually::NeverHappened, "#{bytes} bytes read, and no end within #{within} s" unless join(within)

    self
  end

  def wait_for_bytes(count, within: 10)
    Eventually.until("#{count} bytes at the reader", within: within) { bytes >= count }
    self
  end

  def go(mode = :greedy)
    @commands.write(COMMANDS.fetch(mode))
    self
  end

  def close
    go(:close).wait
  end

  # Unread data or not, the sender gets RST.
  def reset
    go(:reset).wait
  end
end
