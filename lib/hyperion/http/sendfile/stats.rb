# frozen_string_literal: true

# Counters since the process began. Each costs a few nanoseconds.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module Stats
        # In the order of their counters. C code also counts :small, :sendfile and :waits.
        ROUTES = %i[small sendfile splice memory ktls tls_userspace userspace frames].freeze
        EVENTS = %i[waits fallbacks timeouts truncations].freeze
        FIRST_EVENT = 2 # follows the responses and the bytes of :small
        FIRST_ROUTE = FIRST_EVENT + EVENTS.size
        private_constant :FIRST_EVENT, :FIRST_ROUTE

        module_function

        # @param event [Symbol] one of EVENTS
        def event(event)
          Native.count(FIRST_EVENT + EVENTS.index(event), 1)
        end

        # @param route [Symbol, nil] one of ROUTES; nil: none was taken
        # @param bytes [Integer] of the region that were sent
        # @param whole [Boolean] whether the response ends with this region, and all of it was sent
        # @param error [Exception, nil] why it failed
        def response(route, bytes, whole, error)
          if error
            event(:timeouts) if TimeoutError === error
            event(:truncations) if TruncatedError === error
          end
          return unless route

          responses = responses_of(route)
          Native.count(responses, 1) if whole
          Native.count(responses + 1, bytes)
        end

        def responses_of(route)
          index = ROUTES.index(route)
          index.zero? ? 0 : FIRST_ROUTE + ((index - 1) * 2)
        end

        def snapshot
          {
            responses: ROUTES.to_h { |route| [route, Native.counted(responses_of(route))] },
            bytes: ROUTES.to_h { |route| [route, Native.counted(responses_of(route) + 1)] },
            **EVENTS.each_with_index.to_h { |event, index| [event, Native.counted(FIRST_EVENT + index)] }
          }
        end
      end
    end
  end
end
