# frozen_string_literal: true

require "fileutils"
require "open3"
require_relative "statistics"

module Bench
  # A picture of what was found, drawn by gnuplot: lines over sizes in bytes, or bars over names.
  class Chart
    WIDTH = 1000
    HEIGHT = 440
    # Characters that fit beside each other.
    LABEL_ROOM = 60
    # Told apart by the colour-blind, too (Okabe and Ito).
    OURS = [["#D55E00", 3], ["#F0A060", 2], ["#8C3D00", 2]].freeze # and their widths
    REFERENCES = %w[#000000 #999999].freeze
    OTHERS = %w[#0072B2 #009E73 #CC79A7 #56B4E9 #E69F00 #882255 #7F7F7F #999933 #44AA99].freeze
    private_constant :WIDTH, :HEIGHT, :LABEL_ROOM, :OURS, :REFERENCES, :OTHERS

    # One above the other in one file. Returns whether there is a picture now.
    def self.draw(charts, path)
      FileUtils.rm_f(path) # or else an old one would go with the new figures
      return false if charts.empty?

      output, status = Open3.capture2e("gnuplot", stdin_data: script(charts, path))
      warn "bench: gnuplot failed, no picture: #{output}" unless status.success?
      status.success?
    rescue Errno::ENOENT
      warn "bench: no picture, since gnuplot is not installed (Debian: gnuplot-nox)"
      false
    end

    def self.script(charts, path)
      <<~GNUPLOT
        set terminal svg size #{WIDTH},#{HEIGHT * charts.size} noenhanced font "sans-serif,14" background rgb "white"
        set output #{quote(path)}
        set multiplot layout #{charts.size},1
        #{charts.map(&:commands).join}
        unset multiplot
      GNUPLOT
    end
    private_class_method :script

    def self.quote(text)
      "\"#{text.to_s.gsub(/["\\]/) { |character| "\\#{character}" }}\""
    end

    # See Report#chart.
    def initialize(title, over:, unit:, series:, log:, limit:)
      @title = title
      @over = over
      @unit = unit
      @series = series
      @log = log
      @limit = limit
      @places = series.values.flat_map(&:keys).uniq
      @places.sort! if sizes?
    end

    def to_h
      series = @series.transform_values { |points| points.transform_values { |figure| Statistics.plain(figure) } }
      { title: @title, over: @over, unit: @unit, series: series }
    end

    def commands
      <<~GNUPLOT
        reset
        set datafile missing "?"
        #{data}
        set border 3 linecolor rgb "#555555"
        set tics nomirror
        set grid ytics linecolor rgb "#DDDDDD"
        set key outside right top Left reverse samplen 2
        set title #{Chart.quote(@title)} offset 0,-0.4
        set xlabel #{Chart.quote(@over)}
        set ylabel #{Chart.quote(@unit)}
        set format y "%.10g"
        #{@log ? "set logscale y 10" : "set yrange [0:*]"}
        #{sizes? ? lines : bars}
        plot #{plots.join(", \\\n     ")}
      GNUPLOT
    end

    private

    def sizes?
      @places.all?(Integer)
    end

    def lines
      ticks = @places.map { |size| "#{Chart.quote(Bench.size(size))} #{size}" }.join(", ")
      "set logscale x 2\nset xtics rotate by -40 (#{ticks})\nset offsets graph 0.03, graph 0.03, 0, 0"
    end

    def bars
      <<~GNUPLOT
        set style data histogram
        set style histogram errorbars gap 1
        set style fill solid 0.9 noborder
        set errorbars small linecolor rgb "#333333" linewidth 1
        set offsets 0, 0, graph 0.05, 0
        #{"set xtics rotate by -20" if @places.sum(&:size) > LABEL_ROOM}
      GNUPLOT
    end

    # One block of lines per series: place, median, low, high.
    def data
      @series.values.map.with_index do |points, number|
        lines = @places.map { |place| [sizes? ? place : Chart.quote(place), *spread(points[place])].join(" ") }
        "$s#{number} << EOD\n#{lines.join("\n")}\nEOD\n"
      end.join
    end

    def spread(value)
      figures = value.is_a?(Statistics::Estimate) ? [value.median, value.low, value.high] : Array.new(3, value)
      figures.map { |figure| figure.nil? || (@log && !figure.positive?) ? "?" : figure.to_f }
    end

    def plots
      styles = Styles.new
      plots = @series.keys.map.with_index do |name, number|
        colour, width, dash = styles.of(name)
        "$s#{number} using #{sizes? ? "1:2:3:4 with yerrorlines" : "2:3:4:xtic(1)"} title #{Chart.quote(name)} " \
          "linecolor rgb \"#{colour}\" #{"linewidth #{width} dashtype #{dash} pointtype 7 pointsize 0.5" if sizes?}"
      end
      @limit ? [*plots, "#{@limit} with lines linecolor rgb \"#CC0000\" dashtype 2 title \"claimed\""] : plots
    end

    # Colour, width and dash of one series after the other.
    class Styles
      def initialize
        @others = OTHERS.cycle
        @ours = OURS.cycle
        @references = REFERENCES.cycle
      end

      def of(name)
        return [*@ours.next, 1] if name.start_with?("copy_to_socket")
        return [@references.next, 1.5, 2] if name.start_with?("C ")

        [@others.next, 1.5, 1]
      end
    end
    private_constant :Styles
  end
end
