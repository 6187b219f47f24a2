# frozen_string_literal: true

# What a transfer can end with other than success, and how far it had come.
module Hyperion
  module Http
    module Sendfile
      # How far a transfer had come when it failed. Part of {TruncatedError} and {TimeoutError}, and added to
      # every exception that leaves {Sendfile.copy_to_socket} or {Sendfile.copy_data_frames} after the first byte,
      # and to every SystemCallError, IOError and OpenSSL::SSL::SSLError before it, too. The peer has been promised
      # more than it got: the connection has to be closed, unless {#torn?} says that it need not.
      module Progress
        # @return [Integer] bytes of the region that went out, the head not counted
        attr_reader :bytes_sent

        # @return [Integer, nil] bytes of the region that were to go out; nil where that was not known
        attr_reader :bytes_expected

        # @return [Boolean] false: of {Sendfile.copy_data_frames}, when no frame was cut in two. The stream can
        #   be reset, and the connection be used. true: the connection must be closed.
        def torn?
          @torn
        end

        # What it is added to in any case, for a rescue clause. OpenSSL may be loaded late.
        # @api private
        module Carrier
          def self.===(error)
            SystemCallError === error || IOError === error ||
              (defined?(OpenSSL::SSL::SSLError) && OpenSSL::SSL::SSLError === error) || false
          end
        end

        # Adds the counts to an exception that came from below, or replaces those of a transfer within.
        #
        # @param begun [Boolean] whether a byte is out, or may be: if not, a bad argument stays what it is
        # @return [Exception] the same one; a copy of one that is frozen, since it was made beforehand, say
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

      # The file ends before the region does: it was shorter than promised, or was truncated midway.
      class TruncatedError < EOFError
        include Progress

        # @param sent [Integer] bytes of the region that went out
        # @param expected [Integer] bytes of the region that were to go out
        # @param torn [Boolean] see {Progress#torn?}
        def initialize(sent, expected, torn: true)
          record_progress(sent, expected, torn)
          super("the file ended after #{sent} of #{expected} bytes; #{consequence}")
        end
      end

      # No byte moved for as long as the timeout allows.
      class TimeoutError < (defined?(IO::TimeoutError) ? IO::TimeoutError : IOError)
        include Progress

        # @param sent [Integer] bytes of the region that went out
        # @param expected [Integer, nil] bytes of the region that were to go out
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
