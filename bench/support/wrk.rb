# frozen_string_literal: true

require "io/wait"

module Bench
  # wrk asks as fast as it is answered, over several kept-alive connections.
  module Wrk
    # More than any run takes: by itself it stops after whole seconds only, so it is told when.
    UNTIL_TOLD = "600s"
    RATE = %r{^Requests/sec:\s+([\d.]+)}
    REQUESTS = /(\d+) requests in/
    FAILED = /Non-2xx|Socket errors/
    private_constant :UNTIL_TOLD, :RATE, :REQUESTS, :FAILED

    class Failed < StandardError; end

    # Requests per second, and how many in all.
    Result = Struct.new(:rate, :requests)

    module_function

    def installed?
      ENV.fetch("PATH", "").split(File::PATH_SEPARATOR).any? { |dir| File.executable?(File.join(dir, "wrk")) }
    end

    # @param fields [Array<String>] header fields of each request
    def run(url, connections:, seconds:, fields: [])
      options = fields.flat_map { |field| ["-H", field] }
      pipe = IO.popen(["wrk", "-t1", "-c#{connections}", "-d#{UNTIL_TOLD}", *options, url], err: %i[child out])
      sleep(seconds)
      # One that comes before wrk has gone to sleep would not wake it.
      Process.kill(:INT, pipe.pid) until pipe.wait_readable(0.2)
      said = pipe.read
      raise Failed, said if said.match?(FAILED) || !said.match?(RATE)

      Result.new(said[RATE, 1].to_f, said[REQUESTS, 1].to_i)
    ensure
      if pipe
        Process.kill(:KILL, pipe.pid) # which is ours until it is closed
        pipe.close
      end
    end
  end
end
