# frozen_string_literal: true

# The headers of a response that has content.
module Hyperion
  module Http
    module Sendfile
      class Files
        # A middleware that compresses the body, such as Rack::Deflater, says so by setting content-encoding here. From
        # then on the bytes are not those that the strong entity tag names, and their ranges are not the file's: the tag
        # becomes a weak one, by which nobody may resume a download, and ranges are no longer offered.
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
