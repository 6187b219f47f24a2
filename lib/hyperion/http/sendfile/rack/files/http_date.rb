# frozen_string_literal: true

# HTTP dates, RFC 9110, 5.6.7.
module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        module HttpDate
          MONTHS = %w[Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec].freeze
          SHORT_DAY = /(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)/
          LONG_DAY = /(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day/
          MONTH = /(?<month>#{MONTHS.join("|")})/
          # The 60th second is a leap second.
          TIME = /(?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d):(?<second>[0-5]\d|60)/
          IMF_FIXDATE = /\A#{SHORT_DAY}, (?<day>\d\d) #{MONTH} (?<year>\d{4}) #{TIME} GMT\z/
          RFC850_DATE = /\A#{LONG_DAY}, (?<day>\d\d)-#{MONTH}-(?<year>\d\d) #{TIME} GMT\z/
          ASCTIME_DATE = /\A#{SHORT_DAY} #{MONTH} (?<day>[ \d]\d) #{TIME} (?<year>\d{4})\z/
          private_constant :MONTHS, :SHORT_DAY, :LONG_DAY, :MONTH, :TIME, :IMF_FIXDATE, :RFC850_DATE, :ASCTIME_DATE

          # @param seconds [Integer] since 1970
          # @return [String] IMF-fixdate
          def self.format(seconds)
            Time.at(seconds, in: "UTC").strftime("%a, %d %b %Y %H:%M:%S GMT")
          end

          # @param text [String] in any of the three forms; the weekday is not compared with the date
          # @param now [Integer] seconds since 1970; a year of two digits is in this century, or in the last one if it
          #   would be more than 50 years ahead
          # @return [Integer, nil] seconds since 1970; nil: not an HTTP-date
          def self.parse(text, now)
            return unless text.ascii_only?

            match = IMF_FIXDATE.match(text) || ASCTIME_DATE.match(text) || (short_year = RFC850_DATE.match(text))
            return unless match

            year = match[:year].to_i
            year = full_year(year, Time.at(now, in: "UTC").year) if short_year
            seconds(year, match)
          end

          def self.full_year(last_digits, this_year)
            year = this_year - (this_year % 100) + last_digits
            year > this_year + 50 ? year - 100 : year
          end

          def self.seconds(year, match)
            day = match[:day].to_i
            midnight = Time.utc(year, MONTHS.index(match[:month]) + 1, day)
            return unless midnight.day == day # February 30th

            midnight.to_i + (match[:hour].to_i * 3600) + (match[:minute].to_i * 60) + match[:second].to_i
          rescue ArgumentError
            nil # the 32nd, or the 0th
          end
          private_class_method :full_year, :seconds
        end
      end
    end
  end
end
