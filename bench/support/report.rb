# frozen_string_literal: true

require "fileutils"
require "json"
require_relative "chart"
require_relative "machine"
require_relative "statistics"

module Bench
  # What a script found: tables and pictures for people, checks for exit statuses; written as Markdown, JSON and SVG.
  class Report
    # One claim, held against a limit. A figure that is past it by no more than chance explains is not a miss: a check
    # is missed when even the better end of the confidence interval is past the limit.
    Check = Struct.new(:what, :estimate, :sign, :limit, :unit) do
      def verdict
        return "met" if within?(estimate.median)

        within?(estimate.low) || within?(estimate.high) ? "within noise" : "missed"
      end

      def within?(figure)
        sign == "≤" ? figure <= limit : figure >= limit
      end

      def allowed
        "#{sign} #{Statistics.digits(limit)} #{unit}".strip
      end

      def to_s
        "#{what}: #{estimate}, claimed #{allowed}"
      end

      def missed?
        verdict == "missed"
      end

      def to_h
        { what: what, **estimate.to_h, sign: sign, limit: limit, unit: unit, verdict: verdict }
      end
    end

    Table = Struct.new(:title, :columns, :rows) do
      def to_h
        { title: title, columns: columns, rows: rows.map { |cells| cells.map { |cell| Statistics.plain(cell) } } }
      end
    end

    def initialize(name, claim, settings)
      @name = name
      @claim = claim
      @settings = settings
      @facts = Machine.facts
      @notes = []
      @tables = []
      @charts = []
      @checks = []
    end

    # A cell is a text, a number (Markdown shows three digits of a Float, JSON all of them), an Estimate, or nil.
    def table(title, columns, rows)
      @tables << Table.new(title, columns, rows)
    end

    # A panel of this report's picture, NAME.svg. The series are { name => { place => figure } }. The places are all
    # Integers, sizes in bytes (lines over a logarithmic axis), or texts (bars beside each other); over: says what they
    # are. The figures are numbers or Estimates (drawn with their intervals); unit: says of what. log: the axis of the
    # figures is logarithmic; limit: a line at what is claimed. A series whose name begins with "copy_to_socket" is
    # drawn as ours, one whose name begins with "C " as the reference.
    def chart(title, over:, unit:, series:, log: false, limit: nil)
      @charts << Chart.new(title, over: over, unit: unit, series: series, log: log, limit: limit)
    end

    # The run's slack widens the limit, but not that of a count.
    def check(what, estimate, at_most: nil, at_least: nil, unit: "")
      slack = estimate.exact? ? 1 : @settings.fetch(:slack)
      @checks << if at_most
                   Check.new(what, estimate, "≤", at_most * slack, unit)
                 else
                   Check.new(what, estimate, "≥", at_least / slack.to_f, unit)
                 end
    end

    # A paragraph for whoever reads the figures.
    def note(text)
      @notes << text
    end

    # What can't be measured here, and why: on the terminal, too.
    def skip(what, why)
      Bench.clear_progress
      warn "bench: #{@name}: skipped #{what}: #{why}"
      note("Skipped: #{what} (#{why}).")
    end

    def missed
      @checks.select(&:missed?)
    end

    # Leaves NAME.svg, NAME.md and NAME.json in the directory.
    def write(directory)
      FileUtils.mkdir_p(directory)
      path = File.join(directory, @name)
      @picture = "#{@name}.svg" if Chart.draw(@charts, "#{path}.svg")
      File.write("#{path}.md", markdown)
      File.write("#{path}.json", "#{JSON.pretty_generate(to_h)}\n")
    end

    def to_h
      { name: @name, claim: @claim, machine: @facts, settings: @settings, notes: @notes, checks: @checks.map(&:to_h),
        tables: @tables.map(&:to_h), charts: @charts.map(&:to_h) }
    end

    def markdown
      sections = [summary, *("![#{@name}](#{@picture})\n" if @picture), *@tables.map { |table| markdown_table(table) }]
      sections.join("\n")
    end

    # What is claimed, and what came of it.
    def summary
      sections = ["# #{@name}", @claim, *@notes, Machine.line(@facts), *(check_table unless @checks.empty?)]
      "#{sections.map(&:chomp).join("\n\n")}\n"
    end

    private

    def check_table
      rows = @checks.map { |check| [check.what, check.estimate, check.allowed, check.verdict] }
      markdown_table(Table.new("Checks: median (95 % confidence interval)", %w[what found limit verdict], rows))
    end

    def markdown_table(table)
      lines = [table.columns, table.columns.map { "---" }, *table.rows].map do |cells|
        "| #{cells.map { |cell| Statistics.text(cell) }.join(" | ")} |"
      end
      "## #{table.title}\n\n#{lines.join("\n")}\n"
    end
  end
end
