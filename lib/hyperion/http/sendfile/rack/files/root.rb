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
          # How often a file is opened anew because names changed while it was judged.
          TRIES = 20
          # While another process has a lease on a file (fcntl(2), F_SETLEASE), opening it fails. The kernel asks for
          # the lease, and takes it after /proc/sys/fs/lease-break-time, by default 45 seconds.
          LEASE_PAUSE = 0.02
          LEASE_WAIT = 60
          # These need not be the size: files of /proc have 0, and those of sysfs have a page, whatever is in them.
          UNSURE = [0, 4096, 16_384, 65_536].freeze
          # Bytes up to which such a file is read at once.
          AT_ONCE = 64 * 1024
          # Seconds: opening that takes no longer waits for nobody, a scanner of viruses say.
          QUICK = 0.01
          # Files of which it is known how they are opened in an event loop.
          REMEMBERED = 1024
          private_constant :DESCRIPTORS, :DELETED, :TRIES, :LEASE_PAUSE, :LEASE_WAIT, :UNSURE, :AT_ONCE, :QUICK,
                           :REMEMBERED

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
            @quick = {}
          end

          # See {Files#freeze}.
          def freeze
            @quick = nil
            super
          end

          # @param path [String] as {RequestPath.resolve} returns it
          # @return [Array, nil] as {Root.open}; nil also where the file is reached by a symbolic link that is not
          #   allowed
          # @raise [SystemCallError] it can't be opened for another reason
          def open(path)
            find(path) { find_below(path) || open_waiting(path) }
          end

          # As {#open}, but optimised for files that usually do not exist: stat(2) first, because rescuing ENOENT costs
          # more. Unreadable files count as missing.
          #
          # @param (see #open)
          # @return (see #open)
          # @raise (see #open)
          def open_if_there(path)
            find(path) { find_below(path) || (open_waiting(path) if File.exist?(join(path))) }
          rescue Errno::EACCES, Errno::EPERM
            nil
          end

          # @param path [String] absolute
          # @yieldparam file [File] what is open
          # @yieldreturn [Boolean] whether it may be used
          # @return [Array(File, Integer, Integer, Integer, Integer), nil] open for reading, with its inode, size, and
          #   mtime and ctime in nanoseconds; a small file may be there as a String, read. The times are nil where the
          #   size is not what the system says, and then so is a size of which it is known only that it is large. nil:
          #   there is no regular file of that name
          def self.open(path, &judge)
            ReadAhead.beside_loop { open_here(path, &judge) }
          end

          def self.open_here(path)
            file = deadline = nil
            # The other end of a FIFO, and many a device, can tell that it is opened.
            return unless File.stat(path).file?

            begin
              # Interrupted (by Timeout, while a disk is slow), File.new never closes what it has opened.
              Thread.handle_interrupt(Transfer::NEVER) { file = File.new(path, FLAGS) }
            rescue Errno::EWOULDBLOCK
              deadline ||= now + LEASE_WAIT
              raise if now > deadline

              sleep(LEASE_PAUSE)
              retry
            end
            stat = ReadAhead.stat(file)
            found = found(file, stat) if stat.file? && (!block_given? || yield(file))
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG, Errno::ELOOP, Errno::ENXIO, Errno::ENODEV
            nil
          ensure
            ReadAhead.close(file) if file && !found&.first.equal?(file)
          end

          # What has no blocks on a disk is made while it is read (/proc, sysfs, FUSE), or it is empty, or a hole.
          def self.found(file, stat)
            times = [nanoseconds(stat.mtime), nanoseconds(stat.ctime)]
            return [file, stat.ino, stat.size, *times] unless UNSURE.include?(stat.size) && stat.blocks&.zero?

            content = read_out(file)
            size = content&.bytesize
            return [content, stat.ino, size, *times] if size == stat.size

            content ? [content, stat.ino, size, nil, nil] : [file, stat.ino, nil, nil, nil]
          end

          # @return [String, nil] the whole content; nil: it is larger than {AT_ONCE}
          def self.read_out(file)
            content = +"".b
            content << file.pread(AT_ONCE, content.bytesize) while content.bytesize <= AT_ONCE
            nil
          rescue Errno::EINTR
            retry
          rescue EOFError, SystemCallError # some files of /proc can't be read at all
            content
          end

          def self.now
            Process.clock_gettime(Process::CLOCK_MONOTONIC)
          end

          def self.nanoseconds(time)
            (time.to_i * Identity::NANOSECONDS) + time.nsec
          end
          private_class_method :open_here, :found, :read_out, :now, :nanoseconds

          private

          # Opening can wait for a disk, a server, or a scanner, which nothing tells beforehand. Therefore an event loop
          # opens by itself only a file that was opened quickly before, and has not changed since.
          def find(path, &opening)
            return yield unless Waiters.under_scheduler?

            find_again(path) || ReadAhead.beside_loop(&opening)
          end

          def find_again(path)
            facts = @quick && @quick[path] or return

            began = Transfer.now
            *found, _device = Native.open_known(@bytes, path, @policy, *facts)
            @quick.clear if Transfer.now - began > QUICK
            found unless found.empty?
          end

          def find_below(path)
            began = Transfer.now
            *found, device = Native.open_below(@bytes, path, @policy)
            return if found.empty?

            remember(path, [device, *found.drop(1)]) if Transfer.now - began < QUICK
            found
          end

          def remember(path, facts)
            return unless @quick

            @quick.clear if @quick.size >= REMEMBERED
            @quick[path] = facts
          end

          # The file is opened below the folder that the root is at that moment, and judged by it. If the root is
          # switched meanwhile, that is the folder before, or it is tried again.
          def open_waiting(path)
            name = join(path)
            return Root.open(name) if @symlinks == :follow

            TRIES.times do
              return unless regular?(name)

              folder = folder_now
              verdict = nil
              found = Root.open(folder.first + path) { |file| (verdict = judge(file, path, folder)) == :allowed }
              return found if found
              return if verdict == :refused && folder == folder_now
            rescue Errno::ENOENT
              next # the root, between two of its folders
            end
            nil
          end

          def regular?(name)
            File.stat(name).file?
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG, Errno::ELOOP
            false
          end

          # @return [String] where that is
          def join(path)
            @prefix + path
          end

          # @return [Array(String, Integer, Integer)] the root without links, its device and its inode
          def folder_now
            real = real_root
            stat = File.stat(real)
            [real == "/" ? "" : real, stat.dev, stat.ino]
          end

          # File.realpath keeps the GVL. (Without the extension there is none, and perhaps no Dir#fileno.)
          def real_root
            return File.realpath(@path).b unless EXTENSION && HAS_DESCRIPTORS

            Dir.open(@path) { |folder| File.readlink("#{DESCRIPTORS}/#{folder.fileno}").b }
          rescue Errno::EACCES # it can be entered, and not be read
            File.realpath(@path).b
          end

          # @return [Symbol] :allowed, :refused, or :unsure: what it was opened by has another meaning now
          def judge(file, path, folder)
            real = folder.first
            target = target_of(file, real + path) or return :unsure
            return below?(target, real) ? :allowed : :refused if @symlinks == :inside

            expected = real + path
            return :allowed if target == expected
            return :refused unless target == expected + DELETED

            # A file can have that name, and be where a link leads; one that was deleted has none.
            ReadAhead.stat(file).nlink.zero? ? :allowed : :unsure
          end

          def below?(target, real)
            target.start_with?(real) && target.getbyte(real.bytesize) == 47
          end

          # @return [String, nil] the name without links of what is open; nil: it is another file's by now
          def target_of(file, name)
            return File.readlink("#{DESCRIPTORS}/#{file.fileno}").b if HAS_DESCRIPTORS

            target = File.realpath(name)
            target.b if File.identical?(file, target)
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP
            nil
          end
        end
      end
    end
  end
end
