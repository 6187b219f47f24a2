# frozen_string_literal: true

# The answers other than a file.
module Hyperion
  module Http
    module Sendfile
      # The app: see above.
      class Files
        METHODS = %w[GET HEAD OPTIONS].freeze
        # Not an Array, because servers would announce its length, which is not that of the file.
        NO_BODY = Class.new do
          def each; end

          # For Falcon, which sends a body in chunks if it does not know that it is empty, even after a 304.
          def empty?
            true
          end
        end.new.freeze
        private_constant :METHODS, :NO_BODY

        # @api private
        class Refusals
          REASONS = { 400 => "Bad Request", 403 => "Forbidden", 404 => "Not Found", 405 => "Method Not Allowed",
                      406 => "Not Acceptable", 412 => "Precondition Failed", 416 => "Range Not Satisfiable",
                      503 => "Service Unavailable" }.freeze
          # Only the request causes these answers; they do not depend on Accept-Encoding.
          OF_THE_REQUEST = [400, 405].freeze
          # Frameworks on Rack 2 look for this spelling of the name. Rack 3 allows only lower case.
          CASCADE =
            begin
              require "rack/version"
              ::Rack::RELEASE.to_i < 3 ? "X-Cascade" : "x-cascade"
            rescue LoadError
              "x-cascade"
            end
          private_constant :REASONS, :OF_THE_REQUEST, :CASCADE

          # @param vary [String, nil] the value of the header, if the headers of the request choose the file
          def initialize(vary)
            @vary = vary
            freeze
          end

          def options
            [200, { "allow" => METHODS.join(", "), "content-length" => "0" }, []]
          end

          def not_found(method)
            answer(404, method, CASCADE => "pass")
          end

          def not_allowed(method)
            answer(405, method, "allow" => METHODS.join(", "), CASCADE => "pass")
          end

          # Another process has a lease on the file, and does not release it.
          def leased(method)
            answer(503, method, "retry-after" => "60")
          end

          # @param status [Integer]
          # @param method [String] of the request
          # @param more [Hash{String => String}] headers
          # @return [Array(Integer, Hash, #each)]
          def answer(status, method, more = {})
            text = "#{REASONS.fetch(status)}\n"
            headers = { "content-type" => "text/plain", "content-length" => text.bytesize.to_s }.merge!(more)
            headers["vary"] = @vary if @vary && !OF_THE_REQUEST.include?(status)
            [status, headers, method == "HEAD" ? NO_BODY : [text]]
          end
        end
      end
    end
  end
end
