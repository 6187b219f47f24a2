# frozen_string_literal: true

# Checks options in the constructors, so that a wrong one is reported at once and by its name.
module Hyperion
  module Http
    module Sendfile
      # Each method returns the value, or raises an ArgumentError that names the option.
      #
      # @api private
      module Options
        # RFC 9110, 5.1 and 5.5.
        FIELD_NAME = /\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\z/
        NOT_IN_FIELD = /[\x00-\x08\x0a-\x1f\x7f]/n
        private_constant :FIELD_NAME, :NOT_IN_FIELD

        module_function

        def one_of(name, value, values)
          return value if values.include?(value)

          raise ArgumentError, "#{name} can be #{values.map(&:inspect).join(", ")}, not #{value.inspect}"
        end

        def some_of(name, value, values)
          raise ArgumentError, "#{name} must be an Array, not #{value.inspect}" unless Array === value

          value.each { |each| one_of(name, each, values) }
        end

        def count(name, value)
          return value if Integer === value && value >= 0

          raise ArgumentError, "#{name} must be an Integer that is not negative, not #{value.inspect}"
        end

        def timeout(value)
          Arguments.check_timeout(value, others: [nil])
          value
        end

        # @param value [String, #to_path, #to_str]
        # @return [String]
        def path(name, value)
          File.path(value)
        rescue TypeError, ArgumentError, EncodingError => e
          raise ArgumentError, "#{name} must be a path, not #{value.inspect}: #{e.message}"
        end

        # @param headers [Hash, nil]
        # @return [Hash{String => String, Array<String>}] frozen copies, with names in lower case
        def headers(headers)
          return {} if headers.nil?
          raise ArgumentError, "headers must be a Hash, not #{headers.inspect}" unless Hash === headers

          headers.to_h do |name, value|
            unless String === name && FIELD_NAME.match?(name)
              raise ArgumentError, "headers: #{name.inspect} is not the name of a header"
            end

            [name.downcase.freeze, field("headers: #{name}", value)]
          end
        end

        # @param value [String, Array<String>] an Array is several fields of that name, as Rack 3 has it
        def field(name, value)
          return value.map { |each| field(name, each) }.freeze if Array === value
          return value.dup.freeze if String === value && !value.b.match?(NOT_IN_FIELD)

          raise ArgumentError, "#{name} must be a String without control characters, not #{value.inspect}"
        end
      end
      private_constant :Options
    end
  end
end
