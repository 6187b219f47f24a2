# frozen_string_literal: true

# The Accept-Encoding field, RFC 9110, 12.5.3.
module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        module AcceptEncoding
          # One element of the list, which may be empty. Possessive, so that no header makes it backtrack.
          ELEMENT = /
            \G[ \t]*+
            (?:([!\#$%&'*+.^_`|~0-9A-Za-z-]++)
               (?:[ \t]*+;[ \t]*+q=(0(?:\.[0-9]{0,3}+)?+|1(?:\.0{0,3}+)?+))?+)?+
            [ \t]*+(?:,|\z)
          /xi
          IDENTITY = "identity"
          ALIASES = { "x-gzip" => "gzip" }.freeze
          private_constant :ELEMENT, :ALIASES

          # @param field [String, nil] the value of Accept-Encoding
          # @param codings [Array<String>] codings that the server has, best first
          # @return [Array<String>] the codings that the client accepts, best first, including "identity" if it accepts
          #   that. The order is that of the client's weights, then that of codings, with identity last unless the
          #   client says otherwise. A malformed field counts as absent.
          def self.rank(field, codings)
            weights = field ? weights(field) : {}
            return [IDENTITY] if weights.empty?

            others = weights["*"]
            accepted = codings.filter_map do |coding|
              weight = weights.fetch(coding, others || 0)
              [coding, weight] if weight.positive?
            end
            identity = weights.fetch(IDENTITY, others)
            accepted << [IDENTITY, identity || 0] unless identity&.zero?
            accepted.each_with_index.sort_by { |(_, weight), index| [-weight, index] }.map { |(coding, _), _| coding }
          end

          # @return [Hash{String => Float}] weights by coding in lower case; empty if the field is malformed
          def self.weights(field)
            return {} unless field.bytesize <= FIELD_MAX && field.ascii_only?

            weights = {}
            position = 0
            while position < field.bytesize
              match = ELEMENT.match(field, position) or return {}
              position = match.end(0)
              next unless match[1]

              coding = match[1].downcase
              weights[ALIASES.fetch(coding, coding)] = (match[2] || 1).to_f
            end
            weights
          end
          private_class_method :weights
        end
      end
    end
  end
end
