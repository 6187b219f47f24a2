# frozen_string_literal: true

# The gem's version; loadable alone, for the gemspec.
module Hyperion
  module Http
    module Sendfile
      VERSION = "0.1.0"
    end
  end
end
