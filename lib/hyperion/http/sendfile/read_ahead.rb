# frozen_string_literal: true

# Keeps waits for disks and file servers out of the event loop. sendfile and read wait for them even if the socket is
# non-blocking, and every other fiber would wait as well. Therefore background threads make the calls that may wait.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module ReadAhead
        # Bytes of the page cache that are checked at a time: at least as many as one attempt sends.
        WINDOW = 4 * 1024 * 1024
        # Bytes that are read in first. If that is quick, twice as many are read the next time, up to the window.
        # Therefore a slow disk does not delay the first bytes of a file.
        READ_IN = 256 * 1024
        # Seconds.
        QUICK = 0.05
        # Seconds for which data that was seen in the page cache is assumed to stay there.
        LASTING = 1
        # The most threads that work for one event loop.
        READERS = 16
        DESCRIPTORS = "/proc/self/fd"
        HAS_DESCRIPTORS = EXTENSION && File.directory?(DESCRIPTORS)
        private_constant :DESCRIPTORS, :HAS_DESCRIPTORS, :WINDOW, :READ_IN, :QUICK, :LASTING, :READERS

        # Returns when the bytes that the next attempt sends are in the page cache.
        #
        # @return [Boolean] false: that cannot be known for this file. Read it by {beside_loop}, and send it from memory
        def self.call(transfer)
          return true unless IO === transfer.file || Integer === transfer.file

          position = transfer.file_position
          ahead = [transfer.file_remaining || WINDOW, WINDOW].min
          # An attempt sends as many frames as it can, but otherwise no more bytes than requested.
          least = transfer.frames ? ahead : [ahead, READ_IN].min
          fresh = Transfer.now - transfer.looked_at < LASTING
          return true if fresh && transfer.resident_until >= position + least

          look(transfer, position, fresh || transfer.looked_at.zero? ? ahead : least)
        end

        # Runs the block where it may wait for a disk: if called in an event loop, in another thread.
        def self.beside_loop(&block)
          Waiters.under_scheduler? ? Readers.of_this_thread.run(&block) : yield
        end

        # Reads bytes of a file into the page cache, if its file system uses the page cache.
        def self.warm(file, offset, length)
          beside_loop { Native.read_in(file, offset, length) || file.pread(length, offset) }
          nil
        rescue SystemCallError, IOError
          nil # whoever reads it to send it will meet the same, and say so
        end

        # Like IO#pread.
        def self.pread(file, length, offset)
          return file.pread(length, offset) if Waiters.under_scheduler? && Native.resident?(file, offset, length)

          beside_loop { file.pread(length, offset) }
        end

        # Like IO#stat, but IO#stat holds the GVL while a file server answers. (Without the extension there is no GVL.)
        def self.stat(file)
          HAS_DESCRIPTORS ? File.stat("#{DESCRIPTORS}/#{file.fileno}") : file.stat
        rescue Errno::ENOENT # /proc can be missing after chroot(2)
          file.stat
        end

        # @return [Integer, nil] bytes; nil: not a regular file
        def self.regular_size(file)
          return Native.regular_size(file) if Native.tells_resident?(file)

          beside_loop { Native.regular_size(file) }
        end

        # Closing a file on a file server waits for the server.
        def self.close(file)
          return if file.closed?
          return file.close if Native.tells_resident?(file)

          beside_loop { Native.close(file) }
        end

        def self.look(transfer, position, length)
          there = Native.resident?(transfer.file, position, length) || read_in(transfer, position, length)
          transfer.looked_at = Transfer.now
          return false unless there

          transfer.resident_until = position + (there == true ? length : there)
          true
        end

        # @return [Integer, nil] bytes; nil: they are not known to be in the page cache
        def self.read_in(transfer, position, length)
          length = [length, transfer.read_in || READ_IN].min unless transfer.frames
          began = Transfer.now
          there = transfer.apart_from_peer { beside_loop { Native.read_in(transfer.file, position, length) } }
          transfer.read_in = Transfer.now - began < QUICK ? [2 * length, WINDOW].min : READ_IN
          length if there
        rescue SystemCallError, IOError
          nil # whoever reads it to send it will meet the same, and say so
        end
        private_class_method :look, :read_in

        # A block that one of the threads runs for a fiber.
        class Job
          AT_ONCE = { Object => :immediate }.freeze
          private_constant :AT_ONCE

          def initialize(&block)
            @block = block
            @over = Thread::Queue.new
            @waiting = true
          end

          # Called by the fiber.
          # @return [Object] the result of the block
          def value
            @over.pop
            raise @error if @error

            result = @done ? @value : @block.call # no thread was available
            @value = nil
            result
          ensure
            @waiting = false
            discard
          end

          # Called by the thread.
          def carry_out
            @value = Thread.handle_interrupt(AT_ONCE, &@block)
            @done = true
          rescue StandardError => e
            @error = e
          ensure
            discard unless @waiting
            end_it
          end

          def end_it
            @over.close
          end

          private

          # If the fiber was abandoned, nobody else closes a file that was opened for it.
          def discard
            Array(@value).each { |part| Native.close(part) if IO === part }
            @value = nil
          end
        end
        private_constant :Job

        # Threads for one event loop. They end when there is no job, because small responses are cheaper in a process
        # with one thread.
        #
        # The thread count must stay correct and every dequeued job must be finished, therefore interrupts are allowed
        # only while a job runs.
        class Readers
          # Not those of the parent process: threads do not survive a fork.
          def self.of_this_thread
            readers = Thread.current.thread_variable_get(:hyperion_sendfile_readers)
            return readers if readers&.pid == Process.pid

            new.tap { |fresh| Thread.current.thread_variable_set(:hyperion_sendfile_readers, fresh) }
          end

          attr_reader :pid

          def initialize
            @pid = Process.pid
            @mutex = Mutex.new
            @jobs = []
            @threads = 0
          end

          # @return [Object] the result of the block, after a thread has run it
          def run(&block)
            job = Job.new(&block)
            @mutex.synchronize { Thread.handle_interrupt(Transfer::NEVER) { add(job) } }
            job.value
          end

          private

          def add(job)
            @jobs << job
            add_thread
            @jobs.pop.end_it if @threads.zero? # then the fiber runs the block itself
          end

          # The new thread inherits the interrupt mask of its creator, and therefore defers interrupts.
          def add_thread
            return if @threads == READERS

            @threads += 1
            Thread.new { work }
          rescue ThreadError
            @threads -= 1 # the system has no more threads; the running ones take the job
          end

          def work
            leaving = job = nil
            until leaving
              job = nil
              @mutex.synchronize do
                leaving = @jobs.empty?
                @threads -= 1 if leaving
                job = @jobs.shift
              end
              job&.carry_out
            end
          ensure
            give_up(job) unless leaving # the thread was killed
          end

          # Ends the jobs that no thread will run, so that no fiber waits for them.
          def give_up(job)
            job&.end_it
            @mutex.synchronize do
              @threads -= 1
              @jobs.shift.end_it until @threads.positive? || @jobs.empty?
            end
          end
        end
        private_constant :Readers
      end
    end
  end
end
