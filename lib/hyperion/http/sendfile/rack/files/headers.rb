# frozen_string_literal: true

# The headers of a response that has content.
module Hyperion
  module Http
    module Sendfile
      class Files
        # A middleware that compresses the body, such as Rack::Deflater, sets content-encoding here. The strong entity
        # tag no longer identifies the compressed bytes, and ranges of these are not ranges of the file. Therefore the
        # tag becomes weak, so that no client resumes a download by it, and ranges are no longer offered.
        # @api private
        class Headers < Hash
          def []=(name, value)
            super
            coded if name == "content-encoding" && value != "identity"
          end
          alias store []=

          private

          def coded
            etag = self["etag"]
            self["etag"] = "W/#{etag}" if etag && !etag.start_with?("W/")
            delete("accept-ranges")
          end
        end
      end
    end
  end
end
