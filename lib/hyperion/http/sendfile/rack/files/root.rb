# frozen_string_literal: true

# Opens files below a directory, and checks where an open descriptor has led.
module Hyperion
  module Http
    module Sendfile
      class Files
        # Symbolic links are checked by the kernel during open (openat2(2) with RESOLVE_BENEATH), or by the descriptor
        # after opening. The file that was checked is therefore the file that will be read, even if names change
        # meanwhile. The root itself may be a link that changes, like a deployment's `current`.
        #
        # On systems with neither openat2(2) nor /proc, the name is resolved a second time and compared with the
        # descriptor by device and inode. A process that can change folders between these two steps can then reach a
        # file outside. Hard links cannot be detected on any system.
        # @api private
        class Root
          # Opening must not wait for the other end of a FIFO, nor get a controlling terminal.
          FLAGS = File::RDONLY | File::NONBLOCK | File::NOCTTY | File::BINARY
          # The values are those of the extension.
          POLICIES = { inside: 0, follow: 1, refuse: 2 }.freeze
          DESCRIPTORS = "/proc/self/fd"
          HAS_DESCRIPTORS = File.directory?(DESCRIPTORS)
          # Linux appends this to the name of a file that was replaced or deleted after it was opened.
          DELETED = " (deleted)"
          # How often a file is opened again because names changed while it was checked.
          TRIES = 20
          # While another process has a lease on a file (fcntl(2), F_SETLEASE), opening it fails. The kernel asks for
          # the lease, and takes it after /proc/sys/fs/lease-break-time, by default 45 seconds.
          LEASE_PAUSE = 0.02
          LEASE_WAIT = 60
          # Reported sizes that may be wrong: files of /proc report 0, and those of sysfs a page, whatever they contain.
          UNSURE = [0, 4096, 16_384, 65_536].freeze
          # Such a file of up to this many bytes is read at once.
          AT_ONCE = 64 * 1024
          # Seconds: an opening that takes no longer did not wait, for example for a virus scanner.
          QUICK = 0.01
          # The number of files whose quick opening is remembered, for event loops.
          REMEMBERED = 1024
          private_constant :DESCRIPTORS, :DELETED, :TRIES, :LEASE_PAUSE, :LEASE_WAIT, :UNSURE, :AT_ONCE, :QUICK,
                           :REMEMBERED

          # @return [String] the directory as it was given, made absolute
          attr_reader :path

          # @param path [String] a directory
          # @param symlinks [Symbol] :inside, :follow or :refuse
          def initialize(path, symlinks)
            @path = File.expand_path(path).freeze
            # Names are bytes; binary Strings can be joined in any locale.
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
          # @return [Array, nil] as {Root.open}; nil also if the path contains a symbolic link that is not allowed
          # @raise [SystemCallError] the file cannot be opened for another reason
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
          # @yieldparam file [File] the open file
          # @yieldreturn [Boolean] whether the file may be used
          # @return [Array(File, Integer, Integer, Integer, Integer), nil] the file, open for reading, its inode, size,
          #   and mtime and ctime in nanoseconds. A small file may already be read, and is then a String. If the
          #   reported size is wrong, the times are nil, and the size is nil if it is only known to be large. nil: there
          #   is no regular file with that name
          def self.open(path, &judge)
            outlast_lease { ReadAhead.beside_loop { open_now(path, &judge) } }
          end

          # Repeats the block while another process has a lease. Only the caller sleeps: a lease must not
          # occupy one of the few threads beside the loop.
          def self.outlast_lease
            deadline = nil
            begin
              yield
            rescue Errno::EWOULDBLOCK
              deadline ||= Transfer.now + LEASE_WAIT
              raise if Transfer.now > deadline

              sleep(LEASE_PAUSE)
              retry
            end
          end

          # As {Root.open}, where waiting for a disk is allowed.
          #
          # @raise [Errno::EWOULDBLOCK] another process has a lease on the file
          def self.open_now(path)
            file = nil
            # Opening a FIFO is noticed at its other end, and opening many devices has effects.
            return unless File.stat(path).file?

            # An interrupted File.new (by Timeout, while a disk is slow) never closes the descriptor that it has opened.
            Thread.handle_interrupt(Transfer::NEVER) { file = File.new(path, FLAGS) }
            stat = ReadAhead.stat(file)
            found = found(file, stat) if stat.file? && (!block_given? || yield(file))
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG, Errno::ELOOP, Errno::ENXIO, Errno::ENODEV
            nil
          ensure
            ReadAhead.close(file) if file && !found&.first.equal?(file)
          end

          # A file without blocks on a disk is generated while it is read (/proc, sysfs, FUSE), or empty, or a hole.
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
          rescue EOFError, SystemCallError # some files of /proc cannot be read at all
            content
          end

          def self.nanoseconds(time)
            (time.to_i * Identity::NANOSECONDS) + time.nsec
          end
          private_class_method :found, :read_out, :nanoseconds

          private

          # Opening can wait for a disk, a file server or a scanner, and nothing tells that beforehand. Therefore an
          # event loop opens a file itself only if the last opening was quick and the file has not changed since.
          def find(path, &opening)
            Root.outlast_lease do
              (Waiters.under_scheduler? && find_again(path)) || ReadAhead.beside_loop(&opening)
            end
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

          # Opens the file below the folder that the root is at that moment, and checks it against that folder. If the
          # root is switched meanwhile, the file comes from the old folder, or the opening is tried again.
          def open_waiting(path)
            name = join(path)
            return Root.open_now(name) if @symlinks == :follow

            TRIES.times do
              return unless regular?(name)

              folder = folder_now
              verdict = nil
              found = Root.open_now(folder.first + path) { |file| (verdict = judge(file, path, folder)) == :allowed }
              return found if found
              return if verdict == :refused && folder == folder_now
            rescue Errno::ENOENT
              next # the root is being switched
            end
            nil
          end

          def regular?(name)
            File.stat(name).file?
          rescue Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG, Errno::ELOOP
            false
          end

          # @return [String] the absolute name of that path
          def join(path)
            @prefix + path
          end

          # @return [Array(String, Integer, Integer)] the root without links, its device and its inode
          def folder_now
            real = real_root
            stat = File.stat(real)
            [real == "/" ? "" : real, stat.dev, stat.ino]
          end

          # Not by File.realpath, which holds the GVL. (Without the extension there is no GVL, and perhaps no
          # Dir#fileno.)
          def real_root
            return File.realpath(@path).b unless EXTENSION && HAS_DESCRIPTORS

            Dir.open(@path) { |folder| File.readlink("#{DESCRIPTORS}/#{folder.fileno}").b }
          rescue Errno::EACCES # the folder can be entered, but not read
            File.realpath(@path).b
          end

          # @return [Symbol] :allowed, :refused, or :unsure: the name has got another meaning since
          def judge(file, path, folder)
            real = folder.first
            target = target_of(file, real + path) or return :unsure
            return below?(target, real) ? :allowed : :refused if @symlinks == :inside

            expected = real + path
            return :allowed if target == expected
            return :refused unless target == expected + DELETED

            # The target of a link can really have a name that ends like this; a deleted file has no name, and therefore
            # no links.
            ReadAhead.stat(file).nlink.zero? ? :allowed : :unsure
          end

          def below?(target, real)
            target.start_with?(real) && target.getbyte(real.bytesize) == 47
          end

          # @return [String, nil] the name, without links, of the open file; nil: that name is now another file's
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
