# frozen_string_literal: true

# Random Range fields against a slow reading of the RFC: `rake spec:fuzz` tries a hundred thousand, the suite a few. The
# seed is that of the run.
require_relative "../support/rack/direct_client"
require_relative "../support/rack/range_fields"
require_relative "../support/rack/reference_ranges"

RSpec.describe "the Range parser, given anything" do
  tries = Integer(ENV.fetch("FUZZ", 2_000))

  let(:random) { Random.new(RSpec.configuration.seed) }
  let(:fields) { RangeFields.new(random) }

  it "reads as the RFC does, and never asks for a byte twice, or for one that is not there" do
    parser = S::Files.const_get(:ByteRanges)
    outcomes = Hash.new(0)
    tries.times do
      field = fields.next
      size = random.rand(0..40)
      limits = { max_ranges: random.rand(1..6), max_overlaps: random.rand(0..3) }
      ranges = parser.parse(field, size, **limits)
      expect(ranges).to eq(ReferenceRanges.parse(field, size, **limits)), "#{field.inspect} of #{size}, #{limits}"
      bytes = ranges.to_a.flat_map { |offset, length| (offset...(offset + length)).to_a }
      expect(bytes.uniq.size).to eq(bytes.size)
      expect(bytes).to all(be_between(0, size - 1))
      outcomes[ranges&.size&.clamp(0, 2)] += 1
    end
    expect(outcomes.keys).to contain_exactly(nil, 0, 1, 2)
  end

  it "leads to the same answer of the app" do
    client = DirectClient.new(S::Files.new(RackSite.root))
    (tries / 10).times do
      field = fields.next.b
      ranges = ReferenceRanges.parse(field, RackSite::TEXT.bytesize, max_ranges: 256, max_overlaps: 2)
      answer = client.call("GET", "/letters.txt", "range" => field)
      expect(outline(answer)).to eq(expected(ranges)), field.inspect
    end
  end

  # Status and content without what is around the parts.
  def outline(answer)
    parts = answer.status == 206 && !answer["content-range"] ? answer.parts.map(&:last) : [answer.body]
    [answer.status, answer.status == 416 ? nil : parts]
  end

  def expected(ranges)
    return [200, [RackSite::TEXT]] unless ranges

    ranges.empty? ? [416, nil] : [206, ranges.map { |range| RackSite::TEXT.byteslice(*range) }]
  end
end
