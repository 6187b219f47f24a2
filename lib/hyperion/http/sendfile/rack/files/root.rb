# frozen_string_literal: true

# Opens files below a directory, and looks at where a descriptor has led.
module Hyperion
  module Http
    module Sendfile
      class Files
        # Symbolic links are judged by the kernel on the way (openat2(2) with RESOLVE_BENEATH) or by the
        # descriptor after opening: what was judged is what will be read, whatever happens to the names
        # meanwhile. The root itself may be a link that changes, as a deployment's `current` does.
        #
        # Where there is neither openat2(2) nor /proc, the name is resolved a second time and compared with the
        # descriptor by device and inode; who can change folders between these two steps can then reach a file
        # outside.
        # Hard links are not seen anywhere.
        # @api private
        class Root
          # Opening must not wait for the other end of a FIFO, nor get a controlling terminal.
          FLAGS = File::RDONLY | File::NONBLOCK | File::NOCTTY | File::BINARY
          # By the names that the extension has for them.
          POLICIES = { inside: 0, follow: 1, refuse: 2 }.freeze
          DESCRIPTORS = "/proc/self/fd"
          HAS_DESCRIPTORS = File.directory?(DESCRIPTORS)
          # What Linux adds to the name of a file that has been replaced or deleted since it was opened.
          DELETED = " (deleted)"
          private_constant :DESCRIPTORS, :DELETED

          # @return [String] the directory, absolute, as it was named
          attr_reader :path

          # @param path [String] a directory
          # @param symlinks [Symbol] :inside, :follow or :refuse
          def initialize(path, symlinks)
            @path = File.expand_path(path).freeze
            # Names are bytes; in binary they can be joined whatever the locale says.
            @prefix = (@path == "/" ? "" : @path.b).freeze
            @bytes = @path.b.freeze
            @symlinks = symlinks
            @policy = POLICIES.fetch(symlinks)
          end

          # @param path [String] as {RequestPath.resolve} returns it
          # @return [Array, nil] as {Root.open}; nil also where the file is reached by a symbolic link that is not
          #   allowed
          # @raise [SystemCallError] it can't be opened for another reason
          def open(path)
            open_cached(path) || open_waiting(path)
          end

          # As {#open}, for what most likely is not there: an exception costs more than a stat(2). What may not be
          # read is as not there.
          #
          # @param (see #open)
          # @return (see #open)
          # @raise (see #open)
          def open_if_there(path)
            open_cached(path) || (open_waiting(path) if File.exist?(join(path)))
          rescue Errno::EACCES, Errno::EPERM
            nil
          end

          # @param path [String] absolute
          # @yieldparam file [File] what is open
          # @yieldreturn [Boolean] whether it may be used
          # @return [Array(File, Integer, Integer, Integer), nil] open for reading, with its inode, size, and mtime in
          #   nanoseconds; a small file may be there as a String, read; nil: there is no regular file of that name
          def self.open(path)
            file = nil
            # The other end of a FIFO, and many a device, can tell that it is opened.
            return unless File.stat(path).file?

            # Interrupted (by Timeout, while a disk is slow), File.new never closes what it has opened.
            Thread.handle_interrupt(Transfer::NEVER) { file = File.new(path, FLAGS) }
            stat = file.stat
            found = [file, stat.ino, stat.size, nanoseconds(stat.mtime)] if stat.file? && (!block_given? || yield(file))
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG, Errno::ELOOP, Errno::ENXIO, Errno::ENODEV
            nil
          ensure
            file&.close unless found
          end

          def self.nanoseconds(time)
            (time.to_i * 1_000_000_000) + time.nsec
          end
          private_class_method :nanoseconds

          private

          def open_cached(path)
            Native.open_cached(@bytes, path, @policy)
          end

          def open_waiting(path)
            Root.open(join(path)) { |file| allowed?(file, path) }
          end

          # @return [String] where that is
          def join(path)
            @prefix + path
          end

          def allowed?(file, path)
            return true if @symlinks == :follow

            target = target_of(file, path)
            target ? matches?(target, path, real_root) : false
          end

          def matches?(target, path, real)
            return target.start_with?(real) && target.getbyte(real.bytesize) == 47 if @symlinks == :inside

            expected = real + path
            target == expected || target == expected + DELETED
          end

          def real_root
            real = File.realpath(@path).b
            real == "/" ? "" : real
          end

          # @return [String, nil] the name without links of what is open
          def target_of(file, path)
            return File.readlink("#{DESCRIPTORS}/#{file.fileno}").b if HAS_DESCRIPTORS

            target = File.realpath(join(path))
            target.b if File.identical?(file, target)
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP
            nil
          end
        end
      end
    end
  end
end
