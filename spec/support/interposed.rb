# frozen_string_literal: true

require "open3"
require "rbconfig"
require_relative "payload"

# Runs a Ruby script in a process of its own, with functions of a C source standing in front of those that
# libraries export (LD_PRELOAD).
module Interposed
  class << self
    # @return [String] what the script printed
    def run(name, source, script, *arguments, **environment)
      ruby = [RbConfig.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
      preload = { "LD_PRELOAD" => behind(library(name, source)), **environment.transform_keys(&:to_s) }
      output, status = Open3.capture2e(preload, *ruby, "-e", script, *arguments)
      raise "the process with #{name} failed: #{output}" unless status.success?

      output
    end

    # What LD_PRELOAD is to be: a sanitizer that is there already has to stay the first.
    def behind(library)
      [ENV.fetch("LD_PRELOAD", nil), library].compact.join(":")
    end

    def available?
      RUBY_PLATFORM.include?("linux") && system(compiler, "--version", %i[out err] => File::NULL)
    end

    private

    def compiler
      RbConfig::CONFIG["CC"].split.first
    end

    def library(name, source)
      File.join(Payload.dir, "#{name}.so").tap do |path|
        output, status = Open3.capture2e(compiler, "-shared", "-fPIC", "-o", path, Payload.write("#{name}.c", source),
                                         "-ldl")
        raise "#{name} does not compile: #{output}" unless status.success?
      end
    end
  end
end
