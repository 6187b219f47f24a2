# frozen_string_literal: true

# From a regular file to a plain descriptor: by splice if enabled, else sendfile, else memory. Each continues from the
# byte where the one before had to give up.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module NativeRoute
        # Whether a head can be held back until its body follows. On other systems, sendfile sends the head as well.
        MSG_MORE = Sendfile.platform_tag == :linux
        private_constant :MSG_MORE

        # Runs in C until the region is sent or the kernel refuses, including waits. For a fiber, it makes one attempt.
        class TransferStep
          # @param method [Symbol] :sendfile or :buffered
          def initialize(method, wait:)
            @method = method
            @wait = wait
          end

          def call(transfer)
            length = @wait ? transfer.remaining : transfer.step_length
            Native.transfer(transfer.out, transfer.file, transfer.position, length, @method,
                            transfer.head, transfer.head_sent, @wait && transfer.timeout, transfer.report?,
                            transfer.ktls?, transfer.frames) { |bytes, head_bytes| transfer.advance(bytes, head_bytes) }
          end
        end

        # A step by one of the public primitives, after the rest of the head.
        module PrimitiveStep
          def call(transfer)
            if transfer.head_left?
              return TRANSFER_STEPS[false][:sendfile].call(transfer) unless MSG_MORE

              status = send_head(transfer)
              return status if transfer.head_left? || transfer.complete?
            end

            # Count the bytes in the block, because an interrupt can keep the result from being returned, and also from
            # the result, because a wrapper of the primitive may not pass the block on.
            before = transfer.sent
            bytes, status = primitive(transfer) { |sent| transfer.advance(sent) }
            transfer.advance(bytes - (transfer.sent - before))
            status
          end

          private

          # The kernel holds the head back until the first bytes of the body join it.
          def send_head(transfer)
            Native.transfer(transfer.out, nil, 0, transfer.remaining, :head, transfer.head, transfer.head_sent,
                            false, false) { |_, head_bytes| transfer.advance(0, head_bytes) }
          end
        end

        # One {Sendfile.copy}, for a fiber.
        class CopyStep
          include PrimitiveStep

          private

          def primitive(transfer, &block)
            Sendfile.copy(transfer.out, transfer.file, transfer.position, transfer.step_length, &block)
          end
        end

        # One {Sendfile.copy_splice_into_pipe}, through a pipe that serves only this response.
        class SpliceStep
          include PrimitiveStep

          # @return [Boolean, nil] as {Loop.run}; nil: no pipe could be opened
          def self.run(transfer, waiter)
            Native.with_pipe do |*descriptors|
              pipe = %w[rb wb].zip(descriptors).map { |mode, number| IO.for_fd(number, mode, autoclose: false) }
              Loop.run(transfer, waiter, new(*pipe), last: false)
            ensure
              pipe&.each(&:close) # in case someone kept a reference; the IO objects do not own the descriptors
            end
          end

          def initialize(pipe_r, pipe_w)
            @pipe_r = pipe_r
            @pipe_w = pipe_w
          end

          private

          def primitive(transfer, &block)
            Sendfile.copy_splice_into_pipe(transfer.out, transfer.file, transfer.position, transfer.step_length,
                                           @pipe_r, @pipe_w, &block)
          end
        end

        # One step for each method, with and without waiting.
        TRANSFER_STEPS = [false, true].to_h do |wait|
          [wait, %i[sendfile buffered].to_h { |method| [method, TransferStep.new(method, wait: wait).freeze] }.freeze]
        end.freeze
        COPY_IN_FIBER = CopyStep.new.freeze
        private_constant :TRANSFER_STEPS, :COPY_IN_FIBER, :TransferStep, :PrimitiveStep, :CopyStep, :SpliceStep

        # @param method [Symbol] :sendfile or :buffered
        # @return [TransferStep]
        def self.step(method, waiter)
          TRANSFER_STEPS.fetch(waiter.steps_wait?).fetch(method)
        end

        # @param fresh [Boolean] whether nothing has been tried or advised yet
        # @return [Boolean] false: the source has no offsets, or cannot be read in an event loop; {UserspaceRoute} sends
        #   the rest
        def self.run(transfer, waiter, fresh)
          return false unless waiter.prepare(transfer)

          copy_small(transfer) if fresh && transfer.length <= SMALL_FILE_THRESHOLD
          return true if transfer.complete?

          advise(transfer) if fresh
          (Sendfile.sendfile_enabled? && by_kernel(transfer, waiter)) ||
            by(:memory, transfer) { Loop.run(transfer, waiter, step(:buffered, waiter)) }
        end

        def self.by_kernel(transfer, waiter)
          return true if splice?(transfer) && by(:splice, transfer) { SpliceStep.run(transfer, waiter) }

          sendfile = waiter.steps_wait? ? step(:sendfile, waiter) : COPY_IN_FIBER
          by(:sendfile, transfer) { Loop.run(transfer, waiter, sendfile, last: false) }
        end

        # @return [Boolean] false: the rest needs another method
        def self.by(route, transfer)
          transfer.route = route
          yield.tap { |sent| Stats.event(:fallbacks) unless sent }
        end

        def self.copy_small(transfer)
          transfer.route = :small
          counted = 0
          moved = Sendfile.copy_small(transfer.out, transfer.file, transfer.position, transfer.length,
                                      *transfer.head) do |bytes, head_bytes|
            counted = bytes + head_bytes
            transfer.advance(bytes, head_bytes)
          end
          transfer.advance_through_head(moved - counted)
        rescue Errno::ESPIPE
          raise if counted.positive? # then the block raised it
        end

        def self.advise(transfer)
          return if transfer.length < FADVISE_THRESHOLD

          Sendfile.fadvise_sequential(transfer.file, transfer.remaining, transfer.position)
        end

        def self.splice?(transfer)
          transfer.remaining > SPLICE_THRESHOLD && Sendfile.splice_runtime_supported?
        end
        private_class_method :by, :by_kernel, :copy_small, :advise, :splice?
      end
    end
  end
end
