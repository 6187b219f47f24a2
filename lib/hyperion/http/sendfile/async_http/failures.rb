# frozen_string_literal: true

# Logs responses that could not be sent, a limited number of lines at a time.
module Hyperion
  module Http
    module Sendfile
      module AsyncHTTP
        # A client can make a response fail with a few bytes, therefore the number of lines is limited.
        module Failures
          # The most lines in WINDOW seconds.
          LINES = 10
          WINDOW = 60
          private_constant :LINES, :WINDOW

          @since = -Float::INFINITY
          @lines = @left_out = 0

          class << self
            # @param subject [Object] the connection, or its sender
            # @param error [Exception]
            def log(subject, error)
              roll(Process.clock_gettime(Process::CLOCK_MONOTONIC))
              return @left_out += 1 if @lines >= LINES

              @lines += 1
              details = @left_out.zero? ? {} : { left_out: @left_out }
              @left_out = 0
              Console.warn(subject, "A response could not be sent.", exception: error, **details)
            end

            private

            def roll(now)
              return if now - @since < WINDOW

              @since = now
              @lines = 0
            end
          end
        end
      end
    end
  end
end
