# frozen_string_literal: true

# The errors of a transfer, and how many bytes were sent before them.
module Hyperion
  module Http
    module Sendfile
      # How many bytes a transfer had sent when it failed. {TruncatedError} and {TimeoutError} include this module. It
      # is also added to every exception that leaves {Sendfile.copy_to_socket} or {Sendfile.copy_data_frames} after the
      # first byte, and to every SystemCallError, IOError and OpenSSL::SSL::SSLError before it. The peer got less than
      # it was promised: close the connection, unless {#torn?} is false.
      module Progress
        # @return [Integer] bytes of the region that were sent, without the head
        attr_reader :bytes_sent

        # @return [Integer, nil] bytes of the region that were to be sent; nil: unknown
        attr_reader :bytes_expected

        # @return [Boolean] false: no frame was cut in two (only from {Sendfile.copy_data_frames}); reset the stream and
        #   use the connection. true: the connection must be closed.
        def torn?
          @torn
        end

        # Matches the exceptions that always get this module, for a rescue clause. A method, because OpenSSL may be
        # loaded later than this file.
        # @api private
        module Carrier
          def self.===(error)
            SystemCallError === error || IOError === error ||
              (defined?(OpenSSL::SSL::SSLError) && OpenSSL::SSL::SSLError === error) || false
          end
        end

        # Adds the counts to an exception, or replaces those that an inner transfer has added.
        #
        # @param begun [Boolean] whether a byte was sent, or may have been; if not, an error of an argument is left
        #   unchanged
        # @return [Exception] the same exception, or a copy if it is frozen
        # @api private
        def self.tell(error, sent, expected, begun: true, torn: true)
          return error unless begun || Carrier === error

          error = error.dup if error.frozen?
          error.extend(self) unless error.is_a?(Progress)
          error.record_progress(sent, expected, torn)
          error
        end

        # @api private
        def record_progress(sent, expected, torn)
          @bytes_sent = sent
          @bytes_expected = expected
          @torn = torn
        end

        private

        def consequence
          @torn ? "the connection must be closed" : "no frame is cut in two"
        end
      end

      # The file ends before the region does: it was shorter than the region, or was truncated during the call.
      class TruncatedError < EOFError
        include Progress

        # @param sent [Integer] bytes of the region that were sent
        # @param expected [Integer] bytes of the region that were to be sent
        # @param torn [Boolean] see {Progress#torn?}
        def initialize(sent, expected, torn: true)
          record_progress(sent, expected, torn)
          super("the file ended after #{sent} of #{expected} bytes; #{consequence}")
        end
      end

      # No byte moved for the time that the timeout allows.
      class TimeoutError < (defined?(IO::TimeoutError) ? IO::TimeoutError : IOError)
        include Progress

        # @param sent [Integer] bytes of the region that were sent
        # @param expected [Integer, nil] bytes of the region that were to be sent
        # @param timeout [Numeric] seconds that passed without a byte
        # @param torn [Boolean] see {Progress#torn?}
        def initialize(sent, expected, timeout, torn: true)
          record_progress(sent, expected, torn)
          super("no byte for #{timeout} s after #{sent} of #{expected || "an unknown number of"} bytes; #{consequence}")
        end
      end
    end
  end
end
