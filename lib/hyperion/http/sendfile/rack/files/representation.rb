# frozen_string_literal: true

# The headers for one file, all from one fstat(2).
module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        class Representation
          # Fields that describe content, which a 304 does not have (RFC 9110, 8.3 to 8.7 and 15.4.5; 14.4; RFC 9530).
          # All other fields belong in a 304, even if they begin with "content-", because a cache updates its stored
          # fields from it, for example an old content-security-policy.
          OF_CONTENT = %w[content-digest content-encoding content-language content-length content-md5 content-range
                          content-type].freeze
          private_constant :OF_CONTENT

          # @return [Integer] seconds since 1970
          def self.now
            Process.clock_gettime(Process::CLOCK_REALTIME, :second)
          end

          # @return [Integer, nil] bytes; nil: only known after reading to the end
          attr_reader :size
          # @return [String, nil]
          attr_reader :etag
          # @return [String, nil]
          attr_reader :content_type
          # @return [Headers] of a 200, frozen
          attr_reader :headers
          # @return [Hash] of a 304, frozen
          attr_reader :not_modified_headers

          # @param facts [Array] inode, size in bytes, mtime and ctime in nanoseconds since 1970
          # @param content_type [String, nil]
          # @param coding [String, nil] the content coding, if the file has one
          # @param identity [Identity]
          # @param fields [Hash] additional headers
          # @param ranges [Boolean] whether ranges are supported
          def initialize(facts, content_type, coding, identity, fields, ranges)
            @facts = facts
            @size = facts[1]
            @content_type = fields.fetch("content-type", content_type)
            @etag = identity.etag(facts, coding)
            @settled = true
            date(facts[2]) if identity.date?(facts[2])
            @headers = list(coding, fields, ranges).freeze
            @not_modified_headers = {}.merge!(@headers).reject { |name, _| left_out_when_not_modified?(name) }.freeze
          end

          # @param facts [Array] current facts of a file
          # @return [Boolean] whether this object is still correct for that file
          def of?(facts)
            @settled && @facts == facts
          end

          # @param text [String] an HTTP-date
          # @return [Boolean, nil] nil: the text is not a date, or the file has none (13.1.3, 13.1.4: the field is then
          #   ignored)
          def modified_since?(text)
            return false if @modified_at && text == @last_modified

            date = HttpDate.parse(text, Representation.now) if @modified_at
            date && @modified_at > date
          end

          # Whether the date is a strong validator: a file that was modified within this second can be modified again in
          # it (RFC 9110, 8.8.2.2).
          #
          # @param text [String] an HTTP-date
          # @return [Boolean]
          def dated_exactly?(text)
            return false unless @modified_at

            now = Representation.now
            @modified_at < now && (text == @last_modified || HttpDate.parse(text, now) == @modified_at)
          end

          private

          # The date is never in the future (RFC 9110, 8.8.2.1).
          def date(mtime)
            seconds = mtime / Identity::NANOSECONDS
            now = Representation.now
            @settled = seconds <= now
            @modified_at = @settled ? seconds : now
            @last_modified = HttpDate.format(@modified_at).freeze
          end

          def list(coding, fields, ranges)
            headers = {}
            headers["content-type"] = @content_type if @content_type
            headers["content-length"] = @size.to_s.freeze if @size
            headers["last-modified"] = @last_modified if @last_modified
            headers["etag"] = @etag if @etag
            headers["accept-ranges"] = "bytes" if ranges && @size
            headers["content-encoding"] = coding if coding
            Headers[headers.merge!(fields)]
          end

          # Leaves the date out as well if the file has a tag.
          def left_out_when_not_modified?(name)
            OF_CONTENT.include?(name) || (name == "last-modified" && @etag)
          end
        end
      end
    end
  end
end
