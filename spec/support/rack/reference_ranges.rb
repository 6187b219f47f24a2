# frozen_string_literal: true

# What a Range field means, by the letter of RFC 9110, 14.1.2, and with no thought of speed: one character at a time,
# and a set of byte positions for every range.
require "set"

class ReferenceRanges
  DIGITS = ("0".."9").to_a.freeze
  BLANKS = [" ", "\t"].freeze

  # @return as ByteRanges.parse
  def self.parse(field, size, max_ranges:, max_overlaps:)
    new(field, size).parse(max_ranges, max_overlaps)
  end

  def initialize(field, size)
    @field = field.b
    @size = size
  end

  def parse(max_ranges, max_overlaps)
    return unless @field[0, 6].to_s.downcase == "bytes="

    specs = @field[6..].split(",", -1).map { |element| strip(element) }.reject(&:empty?)
    return if specs.empty? || specs.size > max_ranges || !specs.all? { |spec| valid?(spec) }
    return if @size.zero?

    groups = merge(specs.map { |spec| positions(spec) }.reject(&:empty?).each_with_index.to_a)
    return if groups.sum { |_, _, members| members - 1 } > max_overlaps

    groups.sort_by { |_, index, _| index }.map { |set, _, _| [set.min, set.size] }
  end

  private

  def strip(element)
    characters = element.chars
    characters.shift while BLANKS.include?(characters.first)
    characters.pop while BLANKS.include?(characters.last)
    characters.join
  end

  def valid?(spec)
    return false unless spec.count("-") == 1

    first, last = halves(spec)
    return false unless (first + last).chars.all? { |character| DIGITS.include?(character) }
    return !last.empty? if first.empty?

    last.empty? || first.to_i <= last.to_i
  end

  def positions(spec)
    first, last = halves(spec)
    all = (0...@size).to_a
    chosen = first.empty? ? all.last([last.to_i, @size].min) : all.select { |at| at >= first.to_i }
    chosen = chosen.select { |at| at <= last.to_i } unless first.empty? || last.empty?
    Set.new(chosen)
  end

  def halves(spec)
    at = spec.index("-")
    [spec[0...at], spec[(at + 1)..]]
  end

  # Joins any two that share a byte, until no two do.
  def merge(numbered)
    groups = numbered.map { |set, index| [set, index, 1] }
    while (pair = groups.combination(2).find { |one, other| one[0].intersect?(other[0]) })
      one, other = pair
      groups -= pair
      groups << [one[0] | other[0], [one[1], other[1]].min, one[2] + other[2]]
    end
    groups
  end
end
