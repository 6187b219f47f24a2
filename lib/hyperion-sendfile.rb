# frozen_string_literal: true

# For Bundler's auto-require, which goes by the gem's name: an optional part is loaded when it is first named.
require_relative "hyperion/http/sendfile"

module Hyperion
  module Http
    # The public API: see hyperion/http/sendfile.rb.
    module Sendfile
      # Not by autoload, which warns of a circle where an application requires a part's own file.
      PARTS = { Files: "rack", FileBody: "rack", Middleware: "rack", HTTP2: "http2", Falcon: "falcon" }.freeze
      private_constant :PARTS

      def self.const_missing(name)
        part = PARTS[name]
        require "hyperion/http/sendfile/#{part}" if part
        part && const_defined?(name, false) ? const_get(name, false) : super
      end
    end
  end
end
