# frozen_string_literal: true

require "tmpdir"

module Bench
  # Counts the system calls of a piece of work, in a process forked for it, by strace(1).
  module SystemCalls
    # Paths that don't exist, whose look-ups stand in the log around the work.
    BEGIN_MARK = "/bench/begin"
    END_MARK = "/bench/end"
    CALL = /\A\d+ +(\w+)\(/
    private_constant :BEGIN_MARK, :END_MARK, :CALL

    # There is no tracing here: no strace, or no permission.
    class Unavailable < StandardError; end

    module_function

    # Yields, in the child, a method that is to be called with each name and the work of that name as its block.
    # Returns { name => { call => count } }, of all threads of the child.
    def count(&block)
      log(&block).transform_values { |calls| Hash.new(0).merge(calls.map(&:first).tally) }
    end

    # Returns { name => [[call, what strace says of it], …] }, in the order of the log.
    def log(&block)
      Dir.mktmpdir("bench-strace") do |dir|
        log = File.join(dir, "log")
        traced(log, &block)
        parse(File.foreach(log))
      end
    end

    def traced(log)
      start, go = IO.pipe
      child = fork do
        go.close
        GC.disable
        exit!(1) unless start.read(1)
        yield method(:mark)
        exit!(0)
      end
      strace = attach(child, log)
      go.write(".")
    ensure
      [start, go].each(&:close)
      [child, strace].compact.each { |process| Process.wait(process) }
    end

    def mark(name)
      File.exist?("#{BEGIN_MARK}/#{name}")
      yield
    ensure
      File.exist?(END_MARK)
    end

    # Returns once the child is traced.
    def attach(child, log)
      strace = spawn("strace", "-f", "-qq", "-o", log, "-p", child.to_s, err: File::NULL)
      until File.read("/proc/#{child}/status")[/^TracerPid:\s*(\d+)/, 1].to_i == strace
        raise Unavailable, "strace may not trace here" if Process.wait(strace, Process::WNOHANG)

        sleep(0.005)
      end
      strace
    rescue Errno::ENOENT
      raise Unavailable, "strace is not installed"
    end

    def parse(lines)
      name = nil
      lines.each_with_object({}) do |line, calls|
        if line.include?(END_MARK)
          name = nil
        elsif line.include?(BEGIN_MARK)
          name = line[%r{#{BEGIN_MARK}/([^"]*)"}, 1]
          calls[name] ||= []
        elsif name && (call = line[CALL, 1])
          calls[name] << [call, line]
        end
      end
    end
  end
end
