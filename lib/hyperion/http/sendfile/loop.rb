# frozen_string_literal: true

# The one loop over a region: step, count, wait, repeat, until the region is sent or a step fails.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module Loop
        # A step sends as much as it can, advances the transfer and returns a status of {Sendfile.copy}, :want_read (TLS
        # has to hear from the peer first) or :timeout.
        #
        # @param last [Boolean] whether no other method follows this one; then its end of file is believed
        # @param reads_beside [Boolean] whether the step itself reads the file outside of the event loop
        # @return [Boolean] true: the region was sent; false: the step's method is not supported, and the rest needs
        #   another one
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

        # If TLS may have sent a part of a record, it must get the same record again, therefore the step goes on.
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
