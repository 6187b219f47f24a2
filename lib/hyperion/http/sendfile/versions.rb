# frozen_string_literal: true

# Tells whether the loaded version of another gem is one that this gem knows.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module Versions
        # RubyGems orders a prerelease before its release, therefore "< 9" alone would admit 9.0.0.beta1.
        #
        # @param version [String] the loaded version
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
