# frozen_string_literal: true

# Random Range fields. Now and then well-formed, now and then nearly so.
class RangeFields
  NUMBERS = ["0", "1", "2", "7", "9", "10", "15", "29", "30", "31", "007", "99999999999999999999", ""].freeze
  JUNK = ["-", "--", " ", "\t", ",", ",,", ";", "=", "x", "0x1", "1.5", "+1", "\n", "\r\n", "\0", "\u0661", "*", "/",
          "\"", "e", "bytes="].freeze
  UNITS = ["bytes=", "bytes=", "bytes=", "bytes=", "Bytes=", "bytes =", "bytes", "items=", "", "bytes= ",
           "bytes=\t,"].freeze
  SEPARATORS = [",", ",", ", ", " , ", ",\t", ",,", " ,, ,"].freeze

  def initialize(random)
    @random = random
  end

  def next
    field = one_of(UNITS) + Array.new(@random.rand(0..6)) { spec }.join(one_of(SEPARATORS))
    case @random.rand(8)
    when 0 then field.dup.insert(@random.rand(0..field.length), one_of(JUNK))
    when 1 then scratch(field)
    when 2 then @random.bytes(@random.rand(0..20))
    else field
    end
  end

  private

  def spec
    first = one_of(NUMBERS)
    last = one_of(NUMBERS)
    first, last = last, first if @random.rand(3).positive? && !last.empty? && first.to_i > last.to_i
    "#{first}-#{last}"
  end

  def scratch(field)
    field.b.tap { |bytes| bytes.setbyte(@random.rand(bytes.bytesize), @random.rand(256)) unless bytes.empty? }
  end

  def one_of(values)
    values[@random.rand(values.size)]
  end
end
