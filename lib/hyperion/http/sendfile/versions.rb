# frozen_string_literal: true

# Tells whether another gem is one of the versions whose source was read.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module Versions
        # RubyGems orders a prerelease before its release, so that "< 9" would admit 9.0.0.beta1.
        #
        # @param version [String] the one that is loaded
        # @param known [Array<String>] requirements, as RubyGems writes them
        # @return [Boolean] false for every prerelease
        def self.known?(version, known)
          version = Gem::Version.new(version)
          !version.prerelease? && Gem::Requirement.new(known).satisfied_by?(version)
        end
      end
      private_constant :Versions
    end
  end
end
