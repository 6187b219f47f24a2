# frozen_string_literal: true

# How a transfer waits: by the fiber scheduler, or by parking its thread.
module Hyperion
  module Http
    module Sendfile
      # Each waiter answers `steps_wait?` (whether a step of the native route may wait by itself),
      # `prepare(transfer)` (before each step: whether it may read the file), `read(transfer, length)` (what reads as
      # much of the file), `wait(io, writable, seconds)` (whether the event came),
      # `limit(seconds, transfer)` (how long such a wait may be at most), `turn(transfer)` (between two steps
      # that both moved something), `pause(seconds)`, `run` (what waits by itself) and `limits?` (whether
      # Timeout can end that).
      # @api private
      module Waiters
        # @return [Module] the waiter for whoever is calling
        def self.current
          under_scheduler? ? InFiber : InThread
        end

        if Fiber.respond_to?(:current_scheduler)
          # Only a non-blocking fiber has a current scheduler.
          def self.under_scheduler?
            !Fiber.current_scheduler.nil?
          end
        else
          def self.under_scheduler?
            false
          end
        end

        # Waits until the transfer's destination may be tried again, or raises TimeoutError. One that says
        # it is ready and then takes nothing is asked again after a pause.
        def self.await(waiter, transfer, writable)
          patience = transfer.patience
          if transfer.idle > 2
            waiter.pause([0.001 * (2**[transfer.idle - 3, 5].min), patience].compact.min)
            transfer.idle!
          else
            ready = waiter.wait(transfer.io, writable, waiter.limit(patience, transfer))
            ready ? transfer.idle! : transfer.patient!
          end
          return unless patience

          transfer.look_at_queue
          raise transfer.timed_out unless ready || transfer.time_left.positive?
        end

        # Runs what may wait by itself and knows no timeout of ours. nil when the time was over before it
        # was done.
        def self.within(waiter, seconds, &block)
          return waiter.run(&block) unless seconds
          return in_a_thread(seconds, &block) unless waiter.limits?

          deadline = Transfer.now + seconds
          begin
            waiter.run { Timeout.timeout([seconds, SOON].max, &block) }
          rescue Timeout::Error
            raise if Transfer.now < deadline # it is not ours
          end
        end

        # Under a scheduler without timeout_after Timeout would hit whichever fiber runs; and Thread#join
        # there leaves its place in the list of a thread that outlives the fiber.
        def self.in_a_thread(seconds, &block)
          thread = Thread.new(&block)
          thread.report_on_exception = false
          deadline = Transfer.now + seconds
          sleep(SOON) while thread.alive? && Transfer.now < deadline
          thread.value unless thread.alive?
        ensure
          thread&.kill
        end
        private_class_method :in_a_thread

        # Seconds: Timeout takes 0 for no limit.
        SOON = 0.001
        private_constant :SOON

        # Seconds: no wait by a scheduler is longer, since it may not hear that another thread has closed
        # the IO, or that the reader of a pipe is gone. Doubled from one wait to the next, so that a crowd of
        # stalled clients costs little.
        LOOK_AGAIN = 0.15
        LOOK_AGAIN_DOUBLINGS = 3

        # What a scheduler with a fault raises, and nobody who wants to interrupt a fiber.
        SCHEDULER_FAULTS = [ArgumentError, TypeError, NameError, IndexError, FiberError, FrozenError,
                            NotImplementedError].freeze
        private_constant :SCHEDULER_FAULTS

        # Says whose fault it is: an ArgumentError of the scheduler's would be taken for one of the caller's.
        def self.scheduler_fault(error)
          IOError.new("the fiber scheduler #{Fiber.scheduler.class} failed in a wait: #{error.class}: #{error.message}")
        end

        # Every wait goes through the scheduler, and so does the end of every step.
        module InFiber
          module_function

          def steps_wait?
            false
          end

          # A disk would keep the whole loop waiting.
          def prepare(transfer)
            ReadAhead.call(transfer)
          end

          # What is no IO may not be made for another thread.
          def read(transfer, length, &block)
            file = transfer.file
            return yield unless IO === file || Integer === file

            length = [length, *transfer.file_remaining].min
            Native.resident?(file, transfer.file_position, length) ? yield : ReadAhead.beside_loop(&block)
          end

          def wait(io, writable, seconds)
            !(writable ? io.wait_writable(seconds) : io.wait_readable(seconds)).nil?
          rescue *SCHEDULER_FAULTS => e
            raise Waiters.scheduler_fault(e)
          end

          def limit(seconds, transfer)
            longest = LOOK_AGAIN * (2**[transfer.patient, LOOK_AGAIN_DOUBLINGS].min)
            seconds && seconds < longest ? seconds : longest
          end

          # Also where the socket is always ready: waiting for it is what lets other fibers run.
          def turn(transfer)
            transfer.io ? Waiters.await(self, transfer, true) : pause(0)
          end

          def pause(seconds)
            sleep(seconds)
          rescue *SCHEDULER_FAULTS => e
            raise Waiters.scheduler_fault(e)
          end

          def run
            yield
          end

          def limits?
            Fiber.scheduler.respond_to?(:timeout_after)
          end
        end

        # Waits without the GVL and without the scheduler.
        module InThread
          module_function

          def steps_wait?
            true
          end

          # Other threads run while this one waits for a disk.
          def prepare(_transfer)
            true
          end

          def read(_transfer, _length, &block)
            run(&block)
          end

          def wait(io, writable, seconds)
            Native.wait(io, writable, seconds)
          end

          # A close elsewhere wakes it.
          def limit(seconds, _transfer)
            seconds
          end

          # Threads take turns by themselves.
          def turn(_transfer); end

          def pause(seconds)
            run { sleep(seconds) }
          end

          def run(&block)
            Waiters.without_scheduler(&block)
          end

          def limits?
            true
          end
        end

        if Fiber.respond_to?(:blocking)
          # Runs the block where no scheduler is consulted.
          def self.without_scheduler
            under_scheduler? ? Fiber.blocking { |_fiber| yield } : yield
          end
        else
          def self.without_scheduler(&block)
            under_scheduler? ? Fiber.new(blocking: true, &block).resume : yield
          end
        end
      end
    end
  end
end
