# frozen_string_literal: true

# Decides whether the private parts of other gems are unchanged, and warns if they have changed.
require_relative "../notice"
require_relative "../versions"
require_relative "probe"

module Hyperion
  module Http
    module Sendfile
      module AsyncHTTP
        # A group of methods of other gems that one of our parts builds on.
        class Foundation
          REMEDY = "Bodies go the ordinary way of async-http. README.md names the versions to use; a newer " \
                   "hyperion-sendfile may know more."
          private_constant :REMEDY

          # @param part [String] the part that builds on these methods
          # @param versions [Hash{String=>Array<String>}] requirements, as RubyGems writes them; the keys are the
          #   constants that hold the versions
          # @param read [Hash{String=>String}] see {Probe}
          # @param below [Foundation, nil] another group that this one needs
          def initialize(part, versions, read, below: nil)
            @part = part
            @versions = versions
            @probe = Probe.new(read)
            @below = below
          end

          # @return [Boolean] whether all methods are unchanged
          def known?
            why.nil?
          end

          # Warns once if a method has changed.
          #
          # @return [Boolean] whether a method has changed
          def off
            return false if known?

            Notice.off(@part, why, REMEDY)
            true
          end

          # @return [String, nil] the method or version that is unknown, and why
          def why
            return @why if defined?(@why)

            @why = @below&.why || version || @probe.unknown
          end

          private

          def version
            name, = @versions.find do |constant, known|
              !Versions.known?(Object.const_get(constant), known)
            rescue NameError
              true
            end
            "#{name} is #{Object.const_defined?(name) ? Object.const_get(name) : "not defined"}" if name
          end
        end
      end
    end
  end
end
