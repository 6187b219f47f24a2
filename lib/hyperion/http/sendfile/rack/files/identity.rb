# frozen_string_literal: true

# Decides which facts of a file distinguish its versions, and builds the entity tag from them.
module Hyperion
  module Http
    module Sendfile
      class Files
        # Tools that build packages and images give every file the same modification time, so that two builds are
        # identical: 0 (OSTree, Bazel), 1 (Nix), 1980-01-01 (zip, buildpacks), 1984 (Yarn), 1985 (npm), or
        # SOURCE_DATE_EPOCH. A new version of a file can then have the time and the size of the old one.
        #
        # Such a time is neither sent nor compared. The tag then also contains the inode and the time of the last status
        # change (ctime), which the kernel sets when a file is unpacked. If that time was set by a tool as well, as on
        # an image of squashfs or erofs, there is no tag.
        # @api private
        class Identity
          PARTS = %i[inode size mtime].freeze
          NANOSECONDS = 1_000_000_000
          # HTTP began in 1990. An older time was set by a tool.
          EARLIEST = Time.utc(1990).to_i
          private_constant :EARLIEST

          # @param parts [Array<Symbol>, nil] those of {PARTS} that the tag is built from; nil: no tag
          # @param dates [Boolean] whether last-modified is used
          # @param source_date_epoch [String, nil] seconds since 1970, the value of that environment variable
          def initialize(parts, dates, source_date_epoch)
            @parts = parts&.dup&.freeze
            @dates = dates
            @source_date = Integer(source_date_epoch, 10, exception: false) if source_date_epoch
            freeze
          end

          # @param mtime [Integer, nil] nanoseconds since 1970
          # @return [Boolean] whether this time can identify a version
          def date?(mtime)
            @dates && tells?(mtime)
          end

          # @param facts [Array] inode, size, mtime and ctime, as {Root.open} returns them
          # @param coding [String, nil] the content coding, if the file has one
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
