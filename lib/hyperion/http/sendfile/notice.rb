# frozen_string_literal: true

# Warns once per process that an optional part is off.
module Hyperion
  module Http
    module Sendfile
      # No part is ever off silently. Code that turns a part off calls this: it says which part, why, and what to do.
      #
      # @api private
      module Notice
        @said = {}
        @lock = Mutex.new

        class << self
          # Warns, unless this process has already been warned of that part.
          #
          # @param part [String] what is off
          # @param why [String]
          # @param remedy [String] what to do about it
          def off(part, why, remedy)
            return if @said.key?(part) || @lock.synchronize { @said.key?(part) || !(@said[part] = true) }

            warn("hyperion-sendfile: #{part} is off: #{why}. #{remedy}")
          end
        end
      end
      private_constant :Notice
    end
  end
end
