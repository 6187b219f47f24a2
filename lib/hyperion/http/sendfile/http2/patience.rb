# frozen_string_literal: true

# Limits how many streams of a connection may be reset.
module Hyperion
  module Http
    module Sendfile
      module HTTP2
        # A request that is reset at once costs a client nothing, and no longer counts towards the limit of streams
        # (CVE-2023-44487). The same holds if the client makes the server reset it (CVE-2025-8671).
        class Patience
          # Raised if the client exceeds the limit.
          class Exhausted < ::Protocol::HTTP2::ProtocolError
            def initialize
              super("Too many streams were reset.", ::Protocol::HTTP2::Error::ENHANCE_YOUR_CALM)
            end
          end

          # Resets at once: twice the number of streams that async-http allows per connection.
          MOST = 256
          # Resets per second, without limit in time.
          RATE = 32
          private_constant :MOST, :RATE

          def initialize
            @left = MOST
            @since = now
          end

          # Counts a reset stream.
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
