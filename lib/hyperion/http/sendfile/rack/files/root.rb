# frozen_string_literal: true

# Opens files below a directory, and looks at where a descriptor has led.
module Hyperion
  module Http
    module Sendfile
      class Files
        # Symbolic links are judged by the descriptor, after opening: what was judged is what will be read,
        # whatever happens to the names meanwhile. The root itself may be a link that changes, as a
        # deployment's `current` does.
        #
        # Where there is no /proc, the name is resolved a second time and compared with the descriptor by
        # device and inode; who can change folders between these two steps can then reach a file outside.
        # Hard links are not seen anywhere.
        # @api private
        class Root
          # Opening must not wait for the other end of a FIFO, nor get a controlling terminal.
          FLAGS = File::RDONLY | File::NONBLOCK | File::NOCTTY | File::BINARY
          # Bytes of a file that {#read_cached} reads at most.
          CACHED_MAX = 32 * 1024
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
            @real = nil
          end

          # @param path [String] as {RequestPath.resolve} returns it
          # @return [String] where that is
          def join(path)
            @prefix + path
          end

          # The whole of a small file, where it is to be had in one go and without waiting.
          #
          # @param path [String] as {RequestPath.resolve} returns it
          # @return [Array(String, Integer, Integer, Integer), nil] content, inode, size, mtime in nanoseconds;
          #   nil: it has to be opened
          def read_cached(path)
            Native.read_cached(@bytes, path, @policy)
          end

          # @param path [String] as {RequestPath.resolve} returns it
          # @return [File, nil] open for reading; not necessarily a regular file. nil: there is nothing, or it is
          #   reached by a symbolic link that is not allowed
          # @raise [SystemCallError] it can't be opened for another reason
          def open(path)
            file = Root.open(join(path))
            return file if file.nil? || @symlinks == :follow || allowed?(file, path)

            file.close
            nil
          rescue SystemCallError
            file&.close
            raise
          end

          # @param path [String] absolute
          # @return [File, nil] nil: there is nothing of that name that could be a file
          def self.open(path)
            File.new(path, FLAGS)
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG, Errno::ELOOP, Errno::ENXIO, Errno::ENODEV
            nil
          end

          private

          def allowed?(file, path)
            target = target_of(file, path) or return false
            (@real && matches?(target, path, @real)) || matches?(target, path, @real = real_root)
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
