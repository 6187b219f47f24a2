# frozen_string_literal: true

require "rbconfig"

# Tells silence from slowness: how much of a stretch of time had nothing to run. A process of the scheduling class that
# gets only what others leave (SCHED_IDLE, sched(7)) notes the time each millisecond; where its notes are far apart the
# machine was busy, or its own host was. Where chrt(1) can't have that, all time counts as idle.
class IdleTime
  APART = 0.004 # seconds; beside a busy process the notes are a tick of the scheduler apart (10 ms where HZ is 100)
  NOTE = <<~RUBY
    File.open(ARGV.first, "wb") do |file|
      file.sync = true
      loop do
        file.write([Process.clock_gettime(Process::CLOCK_MONOTONIC)].pack("D"))
        sleep 0.001
      end
    end
  RUBY

  def initialize(path)
    @path = path
    @pid = Process.spawn(RbConfig.ruby, "--disable=gems", "-e", NOTE, path)
    Eventually.until("a note", every: 0.02) { File.size?(path) }
    stop unless system("chrt", "--idle", "--pid", "0", @pid.to_s)
  end

  # Seconds of the stretch, times of CLOCK_MONOTONIC, that were idle.
  def within(from, till)
    return till - from unless @pid

    notes.each_cons(2).sum { |a, b| b - a > APART ? 0 : [[b, till].min - [a, from].max, 0].max }
  end

  def stop
    return unless @pid

    Process.kill(:KILL, @pid)
    Process.wait(@pid)
    @pid = nil
  end

  private

  def notes
    bytes = File.binread(@path)
    bytes.byteslice(0, bytes.bytesize / 8 * 8).unpack("D*")
  end
end
