# frozen_string_literal: true

require "etc"
require_relative "pacing"
require_relative "source_file"

module Bench
  # On what, with what and when: without it a figure means nothing.
  module Machine
    module_function

    def line(facts)
      "#{facts.map { |name, value| "#{name} #{value}" }.join(", ")}."
    end

    def facts
      system = Etc.uname
      {
        "kernel" => system.values_at(:sysname, :release, :machine).join(" "),
        "CPU" => "#{Etc.nprocessors} × #{cpu}",
        "Ruby" => "#{RUBY_ENGINE} #{RUBY_ENGINE_VERSION}", "gem" => version,
        "splice" => Hyperion::Http::Sendfile.splice_runtime_supported? ? "on" : "off",
        "congestion control" => Pacing.fact,
        "files in" => "#{SourceFile.directory} (#{filesystem(SourceFile.directory)})",
        "measured" => Time.now.utc.strftime("%Y-%m-%d %H:%M UTC")
      }
    end

    def version
      Hyperion::Http::Sendfile::VERSION
    end

    def cpu
      return "unnamed" unless File.readable?("/proc/cpuinfo")

      File.foreach("/proc/cpuinfo").grep(/\Amodel name/).first.to_s[/: (.+)/, 1] || "unnamed"
    end

    # The type of the mount that holds the path.
    def filesystem(path)
      return "unnamed" unless File.readable?("/proc/mounts")

      path = "#{File.realpath(path)}/"
      mounts = File.foreach("/proc/mounts").map { |mount| mount.split.values_at(1, 2) }
      mount = mounts.select { |point, _| path.start_with?("#{point.chomp("/")}/") }.max_by { |point, _| point.size }
      mount ? mount.last : "unnamed" # chroot(2) hides the mounts above it
    end
  end
end
