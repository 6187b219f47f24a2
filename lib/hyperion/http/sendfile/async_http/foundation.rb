# frozen_string_literal: true

# Decides whether the private parts of other gems are as they were read, and says so if they are not.
require_relative "../notice"
require_relative "../versions"
require_relative "probe"

module Hyperion
  module Http
    module Sendfile
      module AsyncHTTP
        # Some methods of other gems, as they were read.
        class Foundation
          REMEDY = "Bodies go the ordinary way of async-http. README.md names the versions to use; a newer " \
                   "hyperion-sendfile may know more."
          private_constant :REMEDY

          # @param part [String] what is built on it
          # @param versions [Hash{String=>Array<String>}] requirements, as RubyGems writes them, by the constant that
          #   holds the version
          # @param read [Hash{String=>String}] see {Probe}
          # @param below [Foundation, nil] what it stands on
          def initialize(part, versions, read, below: nil)
            @part = part
            @versions = versions
            @probe = Probe.new(read)
            @below = below
          end

          # @return [Boolean] whether it is as it was read
          def known?
            why.nil?
          end

          # Warns, once, if it is not as it was read.
          #
          # @return [Boolean] whether it is not
          def off
            return false if known?

            Notice.off(@part, why, REMEDY)
            true
          end

          # @return [String, nil] what is not known, and how it is not
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
