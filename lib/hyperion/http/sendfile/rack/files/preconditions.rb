# frozen_string_literal: true

# The conditional fields of a GET or HEAD, RFC 9110, 13.
module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        module Preconditions
          # One element of a list of entity tags, which may be empty. Possessive, so that no header makes it backtrack.
          ELEMENT = %r{\G[ \t]*+((?:W/)?"[\x21\x23-\x7e\x80-\xff]*+")?[ \t]*+(?:,|\z)}n
          private_constant :ELEMENT

          # In the order of 13.2.2. An invalid date counts as absent (13.1.3, 13.1.4).
          #
          # @param env [Hash] Rack's environment
          # @param representation [Representation]
          # @return [Integer, nil] 304 or 412; nil: serve the request
          def self.status(env, representation)
            if (tags = env["HTTP_IF_MATCH"])
              return 412 unless strongly_matches?(tags, representation.etag)
            elsif (date = env["HTTP_IF_UNMODIFIED_SINCE"])
              return 412 if representation.modified_since?(date)
            end

            if (tags = env["HTTP_IF_NONE_MATCH"])
              304 if weakly_matches?(tags, representation.etag)
            elsif (date = env["HTTP_IF_MODIFIED_SINCE"])
              304 if representation.modified_since?(date) == false
            end
          end

          # Whether Range applies (13.1.5): the client's part must come from exactly these bytes.
          #
          # @param validator [String, nil] the value of If-Range
          # @param representation [Representation]
          # @return [Boolean]
          def self.range_applies?(validator, representation)
            return true unless validator
            return validator == representation.etag if validator.include?('"')

            representation.dated_exactly?(validator)
          end

          # 8.8.3.2: a weak tag matches nothing.
          def self.strongly_matches?(field, etag)
            field == "*" || (!etag.nil? && tags(field).include?(etag))
          end

          def self.weakly_matches?(field, etag)
            field == "*" || field == etag || (!etag.nil? && tags(field).any? { |tag| tag.delete_prefix("W/") == etag })
          end

          # A cache applies a 304 to the stored response with the same tag (RFC 9111, 4.3.4). A response that was
          # compressed on its way is stored with the weak tag.
          #
          # @param field [String, nil] the value of If-None-Match, which has matched
          # @param etag [String, nil]
          # @return [Boolean] whether it contains the tag only as a weak one
          def self.only_weakly_named?(field, etag)
            return false unless field && etag && field.include?("W/")

            tags = tags(field)
            tags.include?("W/#{etag}") && !tags.include?(etag)
          end

          # @return [Array<String>] empty if the list is malformed
          def self.tags(field)
            return [] if field.bytesize > FIELD_MAX

            field = field.b
            tags = []
            position = 0
            while position < field.bytesize
              match = ELEMENT.match(field, position) or return []
              position = match.end(0)
              tags << match[1] if match[1]
            end
            tags
          end
          private_class_method :strongly_matches?, :weakly_matches?, :tags
        end
      end
    end
  end
end
