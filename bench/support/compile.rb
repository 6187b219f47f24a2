# frozen_string_literal: true

require "rbconfig"
require "tmpdir"

module Bench
  # Builds a C file of this folder as an extension, with the compiler of this Ruby, in a folder that is gone once it is
  # loaded. Nothing of it is in the gem.
  module Compile
    module_function

    # Loads ../NAME.c, whose methods are those of the module Bench. Returns false, and says why on the terminal, where
    # this system has not what it needs.
    def load(name)
      Dir.mktmpdir("bench-#{name}") do |dir|
        library = File.join(dir, "#{name}.#{RbConfig::CONFIG["DLEXT"]}")
        return false unless system(*compiler, "-o", library, File.expand_path("../#{name}.c", __dir__))

        require library
      end
      true
    end

    def load!(name)
      load(name) or abort "bench: could not compile bench/#{name}.c"
    end

    def compiler
      config = RbConfig::CONFIG
      [*config["CC"].split, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-shared", "-fPIC",
       "-I#{config["rubyhdrdir"]}", "-I#{config["rubyarchhdrdir"]}"]
    end
  end
end
