# frozen_string_literal: true

# Brings what an event loop is about to send into the page cache, beside the loop: sendfile and read
# wait for a disk no matter how non-blocking a socket is, and every other fiber would wait with them.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module ReadAhead
        # Bytes that are asked for, and if need be read in, at a time: no less than one attempt sends.
        WINDOW = 4 * 1024 * 1024
        # Threads that read for one event loop at the same time.
        READERS = 4
        private_constant :WINDOW, :READERS

        # Returns when the next bytes of the transfer are there, as far as the kernel tells.
        def self.call(transfer, waiter)
          return if transfer.position < transfer.resident_until
          return unless IO === transfer.file || Integer === transfer.file

          length = [transfer.remaining || WINDOW, WINDOW].min
          transfer.resident_until = transfer.position + length
          return if length.zero? || Native.resident?(transfer.file, transfer.position, length)

          seconds = transfer.time_left&.clamp(0, nil)
          Waiters.within(waiter, seconds) { read_in(transfer, length) } or raise transfer.timed_out
          transfer.start
        end

        def self.read_in(transfer, length)
          file = transfer.file
          position = transfer.position
          Readers.of_this_thread.run { Native.read_in(file, position, length) }.pop
          true
        end
        private_class_method :read_in

        # Threads for one event loop, which end when they have nothing to do: a process with one thread
        # has cheaper small responses.
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

          # @return [Thread::Queue] closed when the block has run
          def run(&job)
            done = Thread::Queue.new
            @mutex.synchronize do
              @jobs << [job, done]
              next if @threads == READERS

              @threads += 1
              Thread.new { work }
            end
            done
          end

          private

          def work
            leaving = false
            until leaving
              job, done = @mutex.synchronize do
                leaving = @jobs.empty?
                @threads -= 1 if leaving
                @jobs.shift
              end
              carry_out(job, done) unless leaving
            end
          ensure
            @mutex.synchronize { @threads -= 1 } unless leaving # it was killed
          end

          def carry_out(job, done)
            job.call
          rescue SystemCallError, IOError
            nil # whoever reads it to send it will meet the same, and say so
          ensure
            done.close
          end
        end
        private_constant :Readers
      end
    end
  end
end
