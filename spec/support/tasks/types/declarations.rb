# frozen_string_literal: true

# Compares what sig/ declares with what the library defines: constants, public methods, and what these take.

require "rbs"
require "rbs/test"
require "hyperion/http/sendfile/rack"
begin
  require "hyperion/http/sendfile/falcon"
rescue LoadError => e
  warn "types: the signatures of HTTP2 and Falcon are not compared: #{e.message}"
end

class Declarations
  OURS = "::Hyperion::Http::Sendfile"

  def initialize
    loader = RBS::EnvironmentLoader.new
    loader.add(path: Pathname("sig"))
    %w[socket openssl].each { |name| loader.add(library: name, version: nil) }
    @environment = RBS::Environment.from_loader(loader).resolve_type_names
    @builder = RBS::DefinitionBuilder.new(env: @environment)
    @checked = 0
  end

  # @return [Array<String>] what is wrong
  def faults
    @faults = []
    @environment.constant_decls.each { |name, entry| constant(name, entry) if ours?(name) }
    @environment.class_decls.each_key do |name|
      compare(name) if ours?(name) && Object.const_defined?(name.to_s)
    end
    @faults << "nothing was compared" if @checked < 50
    @faults
  end

  private

  def ours?(name)
    name.to_s == OURS || name.to_s.start_with?("#{OURS}::")
  end

  def constant(name, entry)
    parent = name.namespace.to_s.delete_suffix("::")
    return unless Object.const_defined?(parent)
    return @faults << "#{name} is not defined" unless Object.const_defined?(name.to_s)

    type_check = RBS::Test::TypeCheck.new(self_class: Object, builder: @builder, sample_size: nil,
                                          unchecked_classes: [], instance_class: Object, class_class: Object)
    @checked += 1
    value = Object.const_get(name.to_s)
    @faults << "#{name} is #{value.inspect}" unless type_check.value(value, entry.decl.type)
  end

  def compare(name)
    object = Object.const_get(name.to_s)
    methods(name, object.singleton_class, @builder.build_singleton(name), object.singleton_methods(false), ".")
    methods(name, object, @builder.build_instance(name), object.public_instance_methods(false), "#")
  end

  def methods(name, owner, definition, defined, separator)
    declared = definition.methods.select do |_, method|
      method.defs.any? { |one| one.implemented_in == name }
    end
    declared.each do |method_name, method|
      next constructor(name, method, separator) if %i[new initialize].include?(method_name)
      next if method.accessibility == :private

      label = "#{name}#{separator}#{method_name}"
      next @faults << "#{label} is not defined" unless owner.public_method_defined?(method_name)

      shapes(label, owner.instance_method(method_name), method)
    end
    (defined - declared.keys).each do |method_name|
      next if internal?(owner.instance_method(method_name))

      @faults << "#{name}#{separator}#{method_name} is not declared"
    end
  end

  def constructor(name, method, separator)
    object = Object.const_get(name.to_s)
    return shapes("#{name}#new", object.instance_method(:initialize), method) if separator == "#"

    shapes("#{name}.new", object.method(:new), method) unless Class === object
  end

  def shapes(label, actual, declared)
    declared.method_types.each do |type|
      @checked += 1
      @faults << "#{label} does not take #{type}: #{actual.parameters}" unless takes?(actual, type.type)
    end
  end

  def takes?(actual, function)
    kinds = actual.parameters.group_by(&:first).transform_values { |list| list.map(&:last) }
    required = kinds.fetch(:req, []).size
    optional = kinds.fetch(:opt, []).size
    positional = function.required_positionals.size + function.trailing_positionals.size
    return false if positional < required
    return false unless kinds.key?(:rest) || positional + function.optional_positionals.size <= required + optional
    return true unless actual.source_location # C tells no more

    keywords?(kinds, function)
  end

  def keywords?(kinds, function)
    given = function.required_keywords.keys + function.optional_keywords.keys
    known = kinds.fetch(:key, []) + kinds.fetch(:keyreq, [])
    (kinds.fetch(:keyreq, []) - function.required_keywords.keys).empty? &&
      (kinds.key?(:keyrest) || ((given - known).empty? && function.rest_keywords.nil?)) &&
      (kinds.key?(:keyrest) || (known - given).empty?)
  end

  # Whether the comment above it has YARD's tag for that.
  def internal?(method)
    file, line = method.source_location
    return false unless file

    lines = File.readlines(file).first(line - 1).reverse
    lines.take_while { |text| text.match?(/^\s*#/) }.any? { |text| text.include?("@api private") }
  end
end

faults = Declarations.new.faults
abort ["types: sig/ is not what the library has:", *faults].join("\n  ") unless faults.empty?
