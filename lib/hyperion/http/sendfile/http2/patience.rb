# frozen_string_literal: true

# How many streams of a connection may be reset.
module Hyperion
  module Http
    module Sendfile
      module HTTP2
        # A request costs a client that resets it at once nothing, and the limit of streams does not count it any more
        # (CVE-2023-44487). The same holds for one that it has the server reset (CVE-2025-8671).
        class Patience
          # The client has used it up.
          class Exhausted < ::Protocol::HTTP2::ProtocolError
            def initialize
              super("Too many streams were reset.", ::Protocol::HTTP2::Error::ENHANCE_YOUR_CALM)
            end
          end

          # Resets at once: those of all streams that async-http allows a connection, twice over.
          MOST = 256
          # Resets a second, for as long as it lasts.
          RATE = 32
          private_constant :MOST, :RATE

          def initialize
            @left = MOST
            @since = now
          end

          # A stream was reset.
          def lose
            time = now
            @left = [@left + ((time - @since) * RATE), MOST].min - 1
            @since = time
          end

          # @raise [Exhausted]
          def check
            raise Exhausted if @left.negative?
          end

          private

          def now
            Process.clock_gettime(Process::CLOCK_MONOTONIC)
          end
        end
        private_constant :Patience
      end
    end
  end
end
