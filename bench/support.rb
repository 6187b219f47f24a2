# frozen_string_literal: true

# What the scripts of this folder share. A script is one claim:
#
#   Bench.run("small", "…the claim…", quick: { rounds: 10 }, full: { rounds: 100 }) do |report, rounds:|
#     …measure…
#     report.table(…)
#     report.check(…)
#   end

require "hyperion/http/sendfile"
require_relative "support/statistics"
require_relative "support/measure"
require_relative "support/source_file"
require_relative "support/drain"
require_relative "support/machine"
require_relative "support/report"

# Measuring copy_to_socket against its peers.
module Bench
  KIB = 1 << 10
  MIB = 1 << 20
  GIB = 1 << 30

  # How much a limit is widened where there is no time for enough rounds.
  QUICK_SLACK = 1.6

  module_function

  # A full run holds the figures against the claim itself and leaves them in results/.
  def run(name, claim, quick:, full:)
    brief = ARGV.delete("--quick")
    settings = brief ? quick : full
    report = Report.new(name, claim, { slack: brief ? QUICK_SLACK : 1, **settings })
    yield report, **settings
    clear_progress
    puts report.markdown
    report.write unless brief
    report.missed.each { |check| warn "bench: #{name} missed: #{check}" }
    exit 1 if report.missed.any?
  end

  def progress(text)
    $stderr.print "\r\e[K#{text}" if $stderr.tty?
  end

  def clear_progress
    progress("")
  end

  # 4 KiB, 1 MiB, 60000 B.
  def size(bytes)
    { GIB => "GiB", MIB => "MiB", KIB => "KiB" }.each do |unit, name|
      return "#{bytes / unit} #{name}" if bytes >= unit && (bytes % unit).zero?
    end
    "#{bytes} B"
  end
end
