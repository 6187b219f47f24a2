# frozen_string_literal: true

require "fileutils"
require "json"

module Bench
  # What a script found: tables for people, checks for exit statuses; written as Markdown and JSON.
  class Report
    RESULTS = File.expand_path("../results", __dir__)
    private_constant :RESULTS

    # One claim, held against a limit. A figure that is over it by no more than chance explains is not a miss: a check
    # is missed when even the low end of the confidence interval is over the limit.
    Check = Struct.new(:what, :estimate, :limit, :unit) do
      def verdict
        return "met" if estimate.median <= limit

        estimate.low <= limit ? "within noise" : "missed"
      end

      def allowed
        "≤ #{limit.round(2)} #{unit}".strip
      end

      def to_s
        "#{what}: #{estimate}, claimed #{allowed}"
      end

      def missed?
        verdict == "missed"
      end

      def to_h
        { what: what, **estimate.to_h, limit: limit, unit: unit, verdict: verdict }
      end
    end

    Table = Struct.new(:title, :columns, :rows)

    attr_reader :checks

    def initialize(name, claim, settings)
      @name = name
      @claim = claim
      @settings = settings
      @tables = []
      @checks = []
    end

    def table(title, columns, rows)
      @tables << Table.new(title, columns, rows)
    end

    # The run's slack multiplies the limit, but not that of a count.
    def check(what, estimate, at_most:, unit: "")
      limit = estimate.exact? ? at_most : at_most * @settings.fetch(:slack)
      @checks << Check.new(what, estimate, limit, unit)
    end

    def missed
      @checks.select(&:missed?)
    end

    def write
      FileUtils.mkdir_p(RESULTS)
      File.write(File.join(RESULTS, "#{@name}.md"), markdown)
      File.write(File.join(RESULTS, "#{@name}.json"), "#{JSON.pretty_generate(to_h)}\n")
    end

    def to_h
      { name: @name, claim: @claim, machine: Machine.facts, settings: @settings, checks: @checks.map(&:to_h),
        tables: @tables.map(&:to_h) }
    end

    def markdown
      sections = ["# #{@name}", @claim, Machine.line, check_table, *@tables.map { |table| markdown_table(table) }]
      "#{sections.join("\n\n")}\n"
    end

    private

    def check_table
      rows = @checks.map { |check| [check.what, check.estimate, check.allowed, check.verdict] }
      markdown_table(Table.new("Checks: median (95 % confidence interval)", %w[what found limit verdict], rows))
    end

    def markdown_table(table)
      lines = [table.columns, table.columns.map { "---" }, *table.rows].map { |cells| "| #{cells.join(" | ")} |" }
      "## #{table.title}\n\n#{lines.join("\n")}"
    end
  end
end
