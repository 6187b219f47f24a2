# frozen_string_literal: true

# How a transfer waits: through the fiber scheduler, or by blocking its thread.
module Hyperion
  module Http
    module Sendfile
      # Each waiter has these methods: `steps_wait?` (whether a step of the native route may wait by itself),
      # `prepare(transfer)` (called before each step; whether the step may read the file), `read(transfer, length)`
      # (runs a block that reads as much of the file), `wait(io, writable, seconds)` (whether the event came),
      # `limit(seconds, transfer)` (the longest time for such a wait), `turn(transfer)` (called between two steps that
      # both sent bytes), `pause(seconds)`, `run` (runs a block that waits by itself) and `limits?` (whether Timeout can
      # end such a block).
      # @api private
      module Waiters
        # @return [Module] the waiter for the calling thread or fiber
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

        # Waits until the transfer's destination can be tried again, or raises TimeoutError. If a destination polls
        # ready but accepts nothing, it is retried after a pause.
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

        # Runs a block that may block and does not know our timeout. Returns nil if the timeout expired first.
        def self.within(waiter, seconds, &block)
          return waiter.run(&block) unless seconds
          return in_a_thread(seconds, &block) unless waiter.limits?

          deadline = Transfer.now + seconds
          begin
            waiter.run { Timeout.timeout([seconds, SOON].max, &block) }
          rescue Timeout::Error
            raise if Transfer.now < deadline # from a Timeout of the caller
          end
        end

        # Under a scheduler without timeout_after, Timeout would interrupt whichever fiber runs at that moment.
        # Thread#join is no alternative: it would leave an entry in the list of a thread that outlives the fiber.
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

        # Seconds; not 0, because Timeout treats 0 as no limit.
        SOON = 0.001
        private_constant :SOON

        # Seconds: the longest wait through a scheduler, which may not notice that another thread has closed the IO, or
        # that the reader of a pipe is gone. Doubled from one wait to the next, so that many stalled clients cost
        # little.
        LOOK_AGAIN = 0.15
        LOOK_AGAIN_DOUBLINGS = 3

        # Errors of a faulty scheduler. Code that interrupts a fiber does not raise these.
        SCHEDULER_FAULTS = [ArgumentError, TypeError, NameError, IndexError, FiberError, FrozenError,
                            NotImplementedError].freeze
        private_constant :SCHEDULER_FAULTS

        # Names the scheduler in the error, because its ArgumentError would look like an error of the caller.
        def self.scheduler_fault(error)
          IOError.new("the fiber scheduler #{Fiber.scheduler.class} failed in a wait: #{error.class}: #{error.message}")
        end

        # Every wait goes through the scheduler, and so does the end of each step.
        module InFiber
          module_function

          def steps_wait?
            false
          end

          # Reads ahead, because a wait for a disk would stop the whole loop.
          def prepare(transfer)
            ReadAhead.call(transfer)
          end

          # An object that is not an IO may not be safe to call in another thread.
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

          # Waits even if the socket is always ready, because the wait lets other fibers run.
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

          # Nothing to do: other threads run while this one waits for a disk.
          def prepare(_transfer)
            true
          end

          def read(_transfer, _length, &block)
            run(&block)
          end

          def wait(io, writable, seconds)
            Native.wait(io, writable, seconds)
          end

          # No limit of its own: a close in another thread ends the wait.
          def limit(seconds, _transfer)
            seconds
          end

          # Nothing to do: threads are scheduled by Ruby.
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
          # Runs the block in a way that no scheduler is called.
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
