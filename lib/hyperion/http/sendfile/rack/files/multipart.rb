# frozen_string_literal: true

# Several ranges in one body, RFC 9110, 14.6.
require "securerandom"

module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        class Multipart
          # @return [Array] for {FileBody}
          attr_reader :segments

          # @param ranges [Array<Array(Integer, Integer)>] [offset, length]
          # @param representation [Representation]
          def initialize(ranges, representation)
            # Random, so that no file contains the boundary.
            @boundary = SecureRandom.hex(16)
            # The empty line before the first boundary is a preamble (RFC 2046, 5.1.1); zsync needs it.
            @segments = ranges.flat_map { |range| [heading(range, representation), range] }
            @segments << "\r\n--#{@boundary}--\r\n"
          end

          # @return [Integer] the total of bytes
          def bytesize
            @segments.sum { |segment| String === segment ? segment.bytesize : segment.last }
          end

          # @param content [String] of the whole file
          # @return [Array<String>] the body
          def in(content)
            @segments.map { |segment| String === segment ? segment : content.byteslice(*segment) }
          end

          # @return [String]
          def content_type
            "multipart/byteranges; boundary=#{@boundary}"
          end

          private

          def heading(range, representation)
            type = representation.content_type
            "\r\n--#{@boundary}\r\n#{"content-type: #{type}\r\n" if type}" \
              "content-range: #{ByteRanges.content_range(range, representation.size)}\r\n\r\n"
          end
        end
      end
    end
  end
end
