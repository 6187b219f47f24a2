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

        # Returns when all that the next attempt may send is there, as far as the kernel tells.
        def self.call(transfer, waiter)
          return unless IO === transfer.file || Integer === transfer.file

          remaining = transfer.file_remaining || WINDOW
          position = transfer.file_position
          reach = position + [remaining, WINDOW].min
          look(transfer, waiter, position + remaining) while transfer.resident_until < reach
        end

        # At the next window of a region that ends at region_end, or goes on for longer than the window.
        def self.look(transfer, waiter, region_end)
          from = transfer.resident_until
          length = [region_end - from, WINDOW].min
          transfer.resident_until += length
          return if Native.resident?(transfer.file, from, length)

          seconds = transfer.time_left&.clamp(0, nil)
          Waiters.within(waiter, seconds) { read_in(transfer.file, from, length) } or raise transfer.timed_out
          transfer.start
        end

        def self.read_in(file, from, length)
          Readers.of_this_thread.run { Native.read_in(file, from, length) }.pop
          true
        end
        private_class_method :look, :read_in

        # Threads for one event loop, which end when they have nothing to do: a process with one thread
        # has cheaper small responses.
        #
        # What is counted has to be true for good, and a job that was taken has to be ended. So interrupts come
        # while a file is read, and not before or after.
        class Readers
          AT_ONCE = { Object => :immediate }.freeze
          private_constant :AT_ONCE

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

          # @return [Thread::Queue] closed when the block has run, or can't
          def run(&job)
            done = Thread::Queue.new
            @mutex.synchronize { Thread.handle_interrupt(Transfer::NEVER) { add(job, done) } }
            done
          end

          private

          def add(job, done)
            @jobs << [job, done]
            add_thread
            @jobs.pop.last.close if @threads.zero? # and whoever sends waits for the disk
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
            leaving = done = nil
            until leaving
              job = nil
              @mutex.synchronize do
                leaving = @jobs.empty?
                @threads -= 1 if leaving
                job, done = @jobs.shift
              end
              carry_out(job, done) unless leaving
            end
          ensure
            give_up(done) unless leaving # it was killed
          end

          # Nobody waits for what no thread does any more.
          def give_up(done)
            done&.close
            @mutex.synchronize do
              @threads -= 1
              @jobs.shift.last.close until @threads.positive? || @jobs.empty?
            end
          end

          def carry_out(job, done)
            Thread.handle_interrupt(AT_ONCE, &job)
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
