# frozen_string_literal: true

# Tells whether the superclasses of our classes have the source that we know.
require "digest"

module Hyperion
  module Http
    module Sendfile
      module AsyncHTTP
        # Compares the source of methods with the source that we know. A version number is not enough: a new version may
        # have left the methods unchanged, and an old one may be patched.
        class Probe
          # @param read [Hash{String=>String, Integer}] keys: methods, as "Module#method" or "Module.method"; values:
          #   the first digits of the digests of their known sources, or the arity
          def initialize(read)
            @read = read
          end

          # @return [String, nil] the first method that has changed, with a reason; nil: none has
          def unknown
            @read.each do |name, as_read|
              return "#{name} has changed" unless same?(name, as_read)
            rescue NameError
              return "there is no #{name}"
            rescue SystemCallError
              return "the source of #{name} cannot be read"
            end
            nil
          end

          private

          def same?(name, as_read)
            Integer === as_read ? Probe.arity(name) == as_read : as_read.split.include?(Probe.digest(name))
          end

          class << self
            # @param name [String] see {#initialize}
            # @return [Integer]
            def arity(name)
              method_of(name).arity
            end

            # @param name [String] see {#initialize}
            # @return [String] the digest of the method's source without comments and indentation
            def digest(name)
              location = method_of(name).source_location or return "" # it is written in C

              Digest::SHA256.hexdigest(source(*location))[0, 12]
            end

            private

            # A prepended module, for example one that traces calls, does not count: it calls the method below it.
            def method_of(name)
              owner, kind, method = name.partition(/[#.]/)
              owner = Object.const_get(owner)
              owner = owner.singleton_class if kind == "."
              prepended = owner.ancestors.take_while { |one| !one.equal?(owner) }
              found = owner.instance_method(method)
              found = found.super_method while found && prepended.include?(found.owner)
              found or raise NameError, name
            end

            def source(path, line)
              lines = File.binread(path).lines.drop(line - 1) # in any locale
              first = lines.first
              if first.match?(/\bdef\b/)
                ending = "#{first[/\A\s*/]}end"
                lines = lines.take((lines.index { |text| text.chomp == ending } || 0) + 1) # nil: an endless method
              else
                lines = [first] # attr, alias
              end
              lines.map(&:strip).reject { |text| text.empty? || text.start_with?("#") }.join("\n")
            end
          end
        end
      end
    end
  end
end
