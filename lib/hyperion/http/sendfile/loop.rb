# frozen_string_literal: true

# The one loop over a region: step, count, wait, again, until it is out or something is in the way.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module Loop
        # A step moves what it can, advances the transfer and answers a status: those of
        # {Sendfile.copy}, or :want_read (TLS has to hear from the peer first) or :timeout.
        #
        # @param last [Boolean] whether there is no other way behind the step's; it is believed about the end of a file
        # @param reads_beside [Boolean] whether the step reads the file beside an event loop by itself
        # @return [Boolean] true when the region is out; false when the step's way is not supported and
        #   the rest has to go by another
        def self.run(transfer, waiter, step, last: true, reads_beside: false)
          until transfer.complete?
            return false unless readable?(transfer, waiter, reads_beside)

            transfer.look_for_hangup
            case step.call(transfer)
            when :done, :partial then waiter.turn(transfer) unless transfer.complete?
            when :eagain then await(waiter, transfer, true)
            when :want_read then await(waiter, transfer, false)
            when :unsupported then return false
            when :timeout then raise transfer.timed_out
            when :eof
              return false if !last && transfer.end_in_doubt?

              transfer.end_here or raise transfer.truncated
            end
          end
          true
        end

        # TLS has to be given again what it may have sent a part of.
        def self.readable?(transfer, waiter, reads_beside)
          reads_beside || waiter.prepare(transfer) || transfer.in_doubt?
        end

        def self.await(waiter, transfer, writable)
          Stats.event(:waits)
          Waiters.await(waiter, transfer, writable)
        end
        private_class_method :readable?, :await
      end
    end
  end
end
