# frozen_string_literal: true

# How a transfer waits: by the fiber scheduler, or by parking its thread.
module Hyperion
  module Http
    module Sendfile
      # Each waiter answers `steps_wait?` (whether a step of the native route may wait by itself),
      # `wait(io, writable, seconds)` (whether the event came), `turn(transfer)` (between two steps that
      # both moved something) and `pause(seconds)`.
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

        # Waits until the transfer's destination is ready, within its timeout, or raises TimeoutError.
        # A destination that says it is ready and then takes nothing is asked again after a pause.
        def self.await(waiter, transfer, writable)
          left = transfer.time_left
          tries = transfer.idle!
          if tries > 2
            waiter.pause([0.001 * (2**[tries - 3, 5].min), left].compact.min)
          elsif !waiter.wait(transfer.io, writable, left)
            raise transfer.timed_out
          end
        end

        # Every wait goes through the scheduler, and so does the end of every step.
        module InFiber
          # A scheduler may not hear that another thread has closed the IO: look now and then, more
          # rarely the longer nothing has happened.
          LOOK_AGAIN = 0.1
          LOOK_AGAIN_LATER = 1.0
          SOON = 50

          module_function

          def steps_wait?
            false
          end

          def wait(io, writable, seconds)
            looks = 0
            while seconds.nil? || seconds.positive?
              slice = (looks += 1) > SOON ? LOOK_AGAIN_LATER : LOOK_AGAIN
              slice = seconds if seconds && seconds < slice
              return true if writable ? io.wait_writable(slice) : io.wait_readable(slice)

              seconds -= slice if seconds
            end
            false
          end

          # Also where the socket is always ready: waiting for it is what lets other fibers run.
          def turn(transfer)
            if transfer.io
              Waiters.await(self, transfer, true)
            else
              sleep(0)
            end
          end

          def pause(seconds)
            sleep(seconds)
          end
        end

        # Waits without the GVL and without the scheduler.
        module InThread
          module_function

          def steps_wait?
            true
          end

          def wait(io, writable, seconds)
            Native.wait(io, writable, seconds)
          end

          # Threads take turns by themselves.
          def turn(_transfer); end

          def pause(seconds)
            Waiters.without_scheduler { sleep(seconds) }
          end
        end

        if Fiber.respond_to?(:blocking)
          # Runs the block where no scheduler is consulted.
          def self.without_scheduler(&block)
            under_scheduler? ? Fiber.blocking(&block) : yield
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
