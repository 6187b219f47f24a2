# frozen_string_literal: true

module Bench
  # Order statistics: nothing here supposes a normal distribution, or that a shared machine gives one.
  module Statistics
    # A median and what is known of it: its 95 % confidence interval. Without samples it is a count.
    Estimate = Struct.new(:median, :low, :high, :samples) do
      def exact?
        samples.nil?
      end

      def to_s
        return Statistics.digits(median) if exact? || samples == 1

        format("%s (%s–%s)", *[median, low, high].map { |figure| Statistics.digits(figure) })
      end
    end

    module_function

    # A figure for people: three digits, and no more than two places where it is near one.
    def digits(figure)
      return figure.to_s unless figure.is_a?(Float) && figure.finite?
      return "0.00" if figure.zero?

      places = (2 - Math.log10(figure.abs).floor).clamp(0, 6)
      format("%.*f", figure.abs >= 0.1 ? [places, 2].min : places, figure)
    end

    # What a cell of a table says to people.
    def text(cell)
      cell.nil? ? "–" : digits(cell)
    end

    # What it says to programs.
    def plain(cell)
      cell.is_a?(Estimate) ? cell.to_h : cell
    end

    def median(samples)
      percentile(samples, 50)
    end

    # The smallest sample that is not exceeded by that percentage of them.
    def percentile(samples, percentage)
      sorted = samples.sort
      sorted[((sorted.size * percentage / 100.0).ceil - 1).clamp(0, sorted.size - 1)]
    end

    # The interval is the binomial one: between which order statistics the true median lies 95 times in 100.
    def estimate(samples)
      sorted = samples.sort
      rank = ((sorted.size - (1.96 * Math.sqrt(sorted.size))) / 2).floor.clamp(0, sorted.size - 1)
      Estimate.new(median(sorted), sorted[rank], sorted[-1 - rank], sorted.size)
    end

    # As ratio, for what has no zero to divide by.
    def difference(samples, others)
      estimate(samples.zip(others).map { |sample, other| sample - other })
    end

    # A count, of which nothing is left to chance.
    def exactly(value)
      Estimate.new(value, value, value, nil)
    end

    # Of the ratios of one round each: what slows the machine slows both.
    def ratio(numerators, denominators)
      estimate(numerators.zip(denominators).map { |numerator, denominator| numerator.to_f / denominator })
    end
  end
end
