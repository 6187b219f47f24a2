# frozen_string_literal: true

# The Range field, RFC 9110, 14.1.2 and 14.2.
module Hyperion
  module Http
    module Sendfile
      class Files
        # Overlapping ranges are merged, in the place of the first of them (15.3.7.2 allows it). Therefore a response
        # never has more bytes of a file than the file. Ranges that only touch stay separate.
        # @api private
        module ByteRanges
          UNIT = /\Abytes=/i
          # One element of the list, which may be empty. Possessive, so that no header makes it backtrack.
          ELEMENT = /\G[ \t]*+(?:([0-9]++)-([0-9]*+)|-([0-9]++))?[ \t]*+(?:,|\z)/
          private_constant :UNIT, :ELEMENT

          # @param field [String] the value of Range
          # @param size [Integer] bytes of the file
          # @param max_ranges [Integer] a field with more ranges is ignored
          # @param max_overlaps [Integer] a field with more ranges that overlap an earlier one is ignored
          # @return [Array<Array(Integer, Integer)>, nil] [offset, length] of the ranges to send, in the order of the
          #   field; empty: no range can be satisfied; nil: ignore the field, because it is malformed, has another unit
          #   or too many ranges, or because the file is empty (any part of it is the whole file)
          def self.parse(field, size, max_ranges:, max_overlaps:)
            return if size.zero? # no content-range can describe an empty file
            return unless field.bytesize <= FIELD_MAX && field.ascii_only? && field.match?(UNIT)

            specs = specs(field, max_ranges) or return
            ranges = specs.filter_map { |first, last| resolve(first, last, size) }
            ranges.size > 1 ? coalesce(ranges, max_overlaps) : ranges
          end

          # @param range [Array(Integer, Integer)] [offset, length]
          # @param size [Integer] bytes of the file
          # @return [String] the value of Content-Range
          def self.content_range(range, size)
            offset, length = range
            "bytes #{offset}-#{offset + length - 1}/#{size}"
          end

          # @return [Array, nil] [first, last], [first, nil] or [nil, suffix length]
          def self.specs(field, max_ranges)
            specs = []
            position = "bytes=".bytesize
            while position < field.bytesize
              match = ELEMENT.match(field, position) or return
              position = match.end(0)
              first, last, suffix = match.captures
              next unless first || suffix

              # first and last; an open range has no last, and a suffix no first
              specs << [first&.to_i, (suffix || last)[/.+/]&.to_i]
              return if specs.size > max_ranges || backwards?(*specs.last)
            end
            specs unless specs.empty?
          end

          def self.backwards?(first, last)
            first && last && last < first
          end

          # @return [Array(Integer, Integer), nil] nil: the range cannot be satisfied
          def self.resolve(first, last, size)
            if first.nil?
              length = [last, size].min
              [size - length, length] unless last.zero?
            elsif first < size
              [first, [last || size, size - 1].min - first + 1]
            end
          end

          # @return [Array, nil] nil: too many ranges overlap
          def self.coalesce(ranges, max_overlaps)
            # Groups of overlapping neighbours; each range has its place in the field.
            end_so_far = 0
            clusters = ranges.each_with_index.sort.slice_when do |((offset, length), _), ((next_offset, _), _)|
              end_so_far = [end_so_far, offset + length].max
              next_offset >= end_so_far
            end.to_a
            return if ranges.size - clusters.size > max_overlaps

            clusters.sort_by { |cluster| cluster.map(&:last).min }.map { |cluster| span(cluster.map(&:first)) }
          end

          def self.span(ranges)
            offset = ranges.first.first
            [offset, ranges.map(&:sum).max - offset]
          end
          private_class_method :specs, :backwards?, :resolve, :coalesce, :span
        end
      end
    end
  end
end
