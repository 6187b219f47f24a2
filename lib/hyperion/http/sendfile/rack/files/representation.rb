# frozen_string_literal: true

# What the headers say of one file, all of it from one fstat(2).
module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        class Representation
          ETAG_PARTS = %i[inode size mtime].freeze
          NANOSECONDS = 1_000_000_000
          private_constant :NANOSECONDS

          # @return [Integer] seconds since 1970
          def self.now
            Process.clock_gettime(Process::CLOCK_REALTIME, :second)
          end

          # @return [Integer] bytes
          attr_reader :size
          # @return [String, nil]
          attr_reader :etag
          # @return [String, nil]
          attr_reader :content_type
          # @return [Hash] of a 200, frozen
          attr_reader :headers
          # @return [Hash] of a 304, frozen
          attr_reader :not_modified_headers

          # @param inode [Integer]
          # @param size [Integer] bytes
          # @param mtime [Integer] nanoseconds since 1970
          # @param content_type [String, nil]
          # @param coding [String, nil] the content coding, where the file has one
          # @param etag_parts [Array<Symbol>, nil] of {ETAG_PARTS}
          # @param fields [Hash] headers besides
          def initialize(inode, size, mtime, content_type, coding, etag_parts, fields)
            @inode = inode
            @size = size
            @mtime = mtime
            @content_type = fields.fetch("content-type", content_type)
            @etag = tag(coding, etag_parts) if etag_parts
            # Never in the future (RFC 9110, 8.8.2.1).
            now = Representation.now
            @settled = mtime / NANOSECONDS <= now
            @modified_at = @settled ? mtime / NANOSECONDS : now
            @last_modified = HttpDate.format(@modified_at).freeze
            @headers = list(coding, fields).freeze
            @not_modified_headers = @headers.reject { |name, _| left_out_when_not_modified?(name) }.freeze
          end

          # @return [Boolean] whether all this holds for that file, too
          def of?(inode, size, mtime)
            @mtime == mtime && @inode == inode && @size == size && @settled
          end

          # @param text [String] an HTTP-date
          # @return [Boolean, nil] nil: it is no date
          def modified_since?(text)
            return false if text == @last_modified

            date = HttpDate.parse(text, Representation.now)
            date && @modified_at > date
          end

          # As a strong validator: a file that was modified within this second can be so again (RFC 9110,
          # 8.8.2.2).
          #
          # @param text [String] an HTTP-date
          # @return [Boolean]
          def dated_exactly?(text)
            now = Representation.now
            @modified_at < now && (text == @last_modified || HttpDate.parse(text, now) == @modified_at)
          end

          private

          def tag(coding, parts)
            all = { inode: @inode, size: @size, mtime: @mtime }
            values = parts.map { |part| all.fetch(part).to_s(16) }
            values << coding if coding
            %("#{values.join("-")}").freeze
          end

          def list(coding, fields)
            headers = {}
            headers["content-type"] = @content_type if @content_type
            headers["content-length"] = @size.to_s.freeze
            headers["last-modified"] = @last_modified
            headers["etag"] = @etag if @etag
            headers["accept-ranges"] = "bytes"
            headers["content-encoding"] = coding if coding
            headers.merge!(fields)
          end

          # What describes the content (RFC 9110, 15.4.5); the date, too, where the tag says more.
          def left_out_when_not_modified?(name)
            return !@etag.nil? if name == "last-modified"

            name == "accept-ranges" || (name.start_with?("content-") && name != "content-location")
          end
        end
      end
    end
  end
end
