# frozen_string_literal: true

# Keeps disks, and servers of files, off an event loop. sendfile and read wait for them even if the socket is
# non-blocking, and every other fiber would wait, too. Therefore threads beside the loop do what may have to wait.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module ReadAhead
        # Bytes that are looked at at a time: no less than one attempt sends.
        WINDOW = 4 * 1024 * 1024
        # Bytes that are read in at first. If that is quick, it is twice as much the next time, up to the window; so a
        # slow disk does not keep the first bytes of a file from the client.
        READ_IN = 256 * 1024
        # Seconds.
        QUICK = 0.05
        # Seconds for which what was seen in the page cache is taken to be there.
        LASTING = 1
        # Threads that work for one event loop at the same time.
        READERS = 16
        DESCRIPTORS = "/proc/self/fd"
        HAS_DESCRIPTORS = EXTENSION && File.directory?(DESCRIPTORS)
        private_constant :DESCRIPTORS, :HAS_DESCRIPTORS, :WINDOW, :READ_IN, :QUICK, :LASTING, :READERS

        # Returns when what the next attempt sends is in the page cache.
        #
        # @return [Boolean] false: that can't be known of this file. It is to be read by {beside_loop}, and sent from
        #   memory
        def self.call(transfer)
          return true unless IO === transfer.file || Integer === transfer.file

          position = transfer.file_position
          ahead = [transfer.file_remaining || WINDOW, WINDOW].min
          # An attempt sends as much of frames as it can, and of anything else no more than it is told to.
          least = transfer.frames ? ahead : [ahead, READ_IN].min
          fresh = Transfer.now - transfer.looked_at < LASTING
          return true if fresh && transfer.resident_until >= position + least

          look(transfer, position, fresh || transfer.looked_at.zero? ? ahead : least)
        end

        # Runs the block where it may wait for a disk: in an event loop, by another thread.
        def self.beside_loop(&block)
          Waiters.under_scheduler? ? Readers.of_this_thread.run(&block) : yield
        end

        # Brings bytes of a file into the page cache, as far as there is one for it.
        def self.warm(file, offset, length)
          beside_loop { Native.read_in(file, offset, length) || file.pread(length, offset) }
          nil
        rescue SystemCallError, IOError
          nil # whoever reads it to send it will meet the same, and say so
        end

        # Reads as IO#pread does.
        def self.pread(file, length, offset)
          return file.pread(length, offset) if Waiters.under_scheduler? && Native.resident?(file, offset, length)

          beside_loop { file.pread(length, offset) }
        end

        # As IO#stat, which keeps the GVL while a server is asked. (Without the extension there is no GVL.)
        def self.stat(file)
          HAS_DESCRIPTORS ? File.stat("#{DESCRIPTORS}/#{file.fileno}") : file.stat
        end

        # @return [Integer, nil] bytes; nil: it is no regular file
        def self.regular_size(file)
          return Native.regular_size(file) if Native.tells_resident?(file)

          beside_loop { Native.regular_size(file) }
        end

        # Closing waits for the server, where the file is on one.
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

        # @return [Integer, nil] bytes; nil: they aren't known to be in the page cache
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

        # What one of the threads does for a fiber.
        class Job
          AT_ONCE = { Object => :immediate }.freeze
          private_constant :AT_ONCE

          def initialize(&block)
            @block = block
            @over = Thread::Queue.new
            @waiting = true
          end

          # Called by the fiber.
          # @return [Object] what the block returns
          def value
            @over.pop
            raise @error if @error

            result = @done ? @value : @block.call # there was no thread for it
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

          # Of a fiber that was given up nobody gets the file that was opened for it.
          def discard
            Array(@value).each { |part| Native.close(part) if IO === part }
            @value = nil
          end
        end
        private_constant :Job

        # Threads for one event loop, which end when they have nothing to do: a process with one thread
        # has cheaper small responses.
        #
        # What is counted has to be true for good, and a job that was taken has to be ended. So interrupts come
        # while a job is done, and not before or after.
        class Readers
          # Threads don't survive a fork.
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

          # @return [Object] what the block returns, when a thread has run it
          def run(&block)
            job = Job.new(&block)
            @mutex.synchronize { Thread.handle_interrupt(Transfer::NEVER) { add(job) } }
            job.value
          end

          private

          def add(job)
            @jobs << job
            add_thread
            @jobs.pop.end_it if @threads.zero? # and the fiber does it by itself
          end

          # It holds interrupts off, as who begins it does.
          def add_thread
            return if @threads == READERS

            @threads += 1
            Thread.new { work }
          rescue ThreadError
            @threads -= 1 # the system has no more of them: the others do it
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
            give_up(job) unless leaving # it was killed
          end

          # Nobody waits for what no thread does any more.
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
