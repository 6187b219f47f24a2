# frozen_string_literal: true

# What the scripts of this folder share. A script is one file beside this one, and one claim:
#
#   Bench.run("name", "…the claim…", quick: { rounds: 10 }, full: { rounds: 100 }) do |report, rounds:|
#     Bench.progress("name: what is being measured")       # one line, on a terminal
#     …measure: Bench::Measure, Bench::Statistics…
#     report.table("title", %w[size peer µs], [["4 KiB", "write", 3.21], …])
#     report.check("CPU against write, 4 KiB", ratio, at_most: 1.0)     # or at_least:
#     report.chart("title", over: "response", unit: "CPU µs", series: { "copy_to_socket" => { 4096 => 3.2 }, … })
#     report.note("…") or report.skip("what", "why it can't be measured here")
#   end
#
# name is that of the file; run.rb finds it there. Helpers are in support/ and C in *.c. With --quick a script gets the
# settings of quick:, and all scripts together have a minute. What is found goes to results/NAME.md, .json and .svg, or,
# of a quick run, to tmp/bench/; BENCH_RESULTS names another folder.

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
  QUICK_SLACK = 2
  RESULTS = File.expand_path("results", __dir__)
  QUICK_RESULTS = File.expand_path("../tmp/bench", __dir__)

  module_function

  # A full run holds the figures against the claim itself.
  def run(name, claim, quick:, full:)
    brief = ARGV.delete("--quick")
    settings = brief ? quick : full
    report = Report.new(name, claim, { slack: brief ? QUICK_SLACK : 1, **settings })
    yield report, **settings
    clear_progress
    report.write(ENV.fetch("BENCH_RESULTS") { brief ? QUICK_RESULTS : RESULTS })
    puts brief ? report.summary : report.markdown
    report.missed.each { |check| warn "bench: #{name} missed: #{check}" }
    exit 1 if report.missed.any?
  end

  def progress(text)
    $stderr.print "\r\e[K#{text}" if $stderr.tty?
  end

  def clear_progress
    progress("")
  end

  # With the splice route switched on.
  def with_splice
    before = ENV.fetch("HYPERION_HTTP_SPLICE", nil)
    ENV["HYPERION_HTTP_SPLICE"] = "1"
    yield
  ensure
    ENV["HYPERION_HTTP_SPLICE"] = before
  end

  # 4 KiB, 1 MiB, 60000 B.
  def size(bytes)
    { GIB => "GiB", MIB => "MiB", KIB => "KiB" }.each do |unit, name|
      return "#{bytes / unit} #{name}" if bytes >= unit && (bytes % unit).zero?
    end
    "#{bytes} B"
  end
end
