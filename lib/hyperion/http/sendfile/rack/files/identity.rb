# frozen_string_literal: true

# Which facts of a file tell one version of it from the next, and the entity tag that is made of them.
module Hyperion
  module Http
    module Sendfile
      class Files
        # Tools that build packages and images give every file one and the same modification time, so that two builds
        # are equal byte by byte: 0 (OSTree, Bazel), 1 (Nix), 1980-01-01 (zip, buildpacks), 1984 (Yarn), 1985 (npm), or
        # SOURCE_DATE_EPOCH. By such a time, and by the size, a new version of a file can look like the old one.
        #
        # The time of such a file is not sent and validates nothing. Its tag is made of the inode and the time of the
        # last status change as well, which the kernel sets when a file is unpacked. Where that time is a tool's, too,
        # as on an image of squashfs or erofs, there is no tag.
        # @api private
        class Identity
          PARTS = %i[inode size mtime].freeze
          NANOSECONDS = 1_000_000_000
          # HTTP began in 1990. What claims to be older has its time from a tool.
          EARLIEST = Time.utc(1990).to_i
          private_constant :EARLIEST

          # @param parts [Array<Symbol>, nil] of {PARTS}, of which the tag is made; nil: there is none
          # @param dates [Boolean] whether files have a date
          # @param source_date_epoch [String, nil] seconds since 1970, as in that variable of the environment
          def initialize(parts, dates, source_date_epoch)
            @parts = parts&.dup&.freeze
            @dates = dates
            @source_date = Integer(source_date_epoch, 10, exception: false) if source_date_epoch
            freeze
          end

          # @param mtime [Integer, nil] nanoseconds since 1970
          # @return [Boolean] whether it can be the date of a version
          def date?(mtime)
            @dates && tells?(mtime)
          end

          # @param facts [Array] inode, size, mtime and ctime, as {Root.open} returns them
          # @param coding [String, nil] the content coding, where the file has one
          # @return [String, nil] the entity tag
          def etag(facts, coding)
            inode, size, mtime, ctime = facts
            return unless @parts && mtime

            parts = @parts
            if parts.include?(:mtime) && !tells?(mtime)
              return unless tells?(ctime)

              parts |= %i[inode ctime]
            end
            all = { inode: inode, size: size, mtime: mtime, ctime: ctime }
            values = parts.map { |part| all.fetch(part).to_s(16) }
            values << coding if coding
            %("#{values.join("-")}").freeze
          end

          private

          def tells?(time)
            return false unless time

            seconds = time / NANOSECONDS
            seconds >= EARLIEST && seconds != @source_date
          end
        end
      end
    end
  end
end
