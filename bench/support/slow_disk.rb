# frozen_string_literal: true

module Bench
  # A limit to what this process, and those it forks meanwhile, may read from the disk of a file: by the blkio
  # controller of control groups, version 1.
  module SlowDisk
    GROUPS = "/sys/fs/cgroup/blkio"
    private_constant :GROUPS

    module_function

    # Yields under the limit, in bytes per second. Returns why not where that can't be done, as a sentence.
    def limit(file, rate)
      group = File.join(GROUPS, "bench-#{Process.pid}")
      begin
        Dir.mkdir(group)
        File.write(File.join(group, "blkio.throttle.read_bps_device"), "#{disk(file)} #{rate}")
        File.write(File.join(group, "cgroup.procs"), Process.pid.to_s)
      rescue SystemCallError => e
        return "no control group to slow the disk: #{e.message}"
      end
      yield
      nil
    ensure
      leave(group)
    end

    # The number of the whole disk: a partition has no limits of its own.
    def disk(file)
      stat = file.stat
      device = File.realpath("/sys/dev/block/#{stat.dev_major}:#{stat.dev_minor}")
      device = File.dirname(device) if File.exist?(File.join(device, "partition"))
      File.read(File.join(device, "dev")).strip
    end

    def leave(group)
      return unless Dir.exist?(group)

      File.write(File.join(GROUPS, "cgroup.procs"), Process.pid.to_s)
      Dir.rmdir(group)
    end
  end
end
