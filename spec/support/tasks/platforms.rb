# frozen_string_literal: true

# Builds of the extension as other systems have it, for the Rakefile: with the headers and the kernel that stand in for
# those of macOS and FreeBSD, and as on a system without sendfile; and builds as if a probe of extconf.rb had found the
# opposite. Each has a folder of its own; the normal build is left alone.

require "rake"
require "rbconfig"
require "shellwords"
require_relative "extension"
require_relative "sanitizers"

module Platforms
  extend Rake::FileUtilsExt

  NAMES = %w[portable darwin freebsd].freeze
  ROOT = File.expand_path("../../..", __dir__)
  STAND_INS = File.join(ROOT, "spec/support/stand_in")
  FEATURE = "hyperion/http/sendfile/hyperion_sendfile"
  CFLAGS = %w[-std=gnu11 -Wall -Wextra -Werror -O1 -fPIC -D_GNU_SOURCE].freeze

  # Specs of what does not depend on the system, or knows on which it is.
  NEEDED = %w[delivers_every_byte edges errors].freeze
  FURTHER = %w[data_frames data_frames_ends close timeout facade peer_gone interrupts stats published_suites].freeze

  # What extconf.rb says can be forced, in its first lines: NAME=VALUE.
  FORCED = File.foreach(Extension::EXTCONF).take_while { |line| line.match?(/\A(?:#|$)/) }.filter_map do |line|
    line[/\A#   (HYPERION_(?!STRICT|PLATFORM)\w+=\w+)/, 1]
  end.freeze
  FORCED_SPECS = NEEDED + %w[primitives close descriptors facade interrupts peer_gone timeout data_frames].freeze

  module_function

  # Runs the specs against the build with +setting+, one of FORCED.
  def spec_forced(setting)
    forcing = setting.split("=", 2).each_slice(2).to_h
    library = build(setting, forcing)
    # All Ruby processes, those that specs start too, are to have this build.
    environment = { "RUBYOPT" => "#{ENV.fetch("RUBYOPT", nil)} #{Sanitizers.first(library)}", **forcing }
    Dir.chdir(ROOT) do
      sh(environment, Gem.ruby, "-S", "rspec", "--require", "spec_helper", "--tag", "~patience",
         *FORCED_SPECS.map { |name| "spec/hyperion/http/sendfile/#{name}_spec.rb" }, verbose: false)
    end
  end

  # Runs the specs against the build of that name; what the stand-in kernel does by chance comes from the seed.
  def spec(name, seed, brief: false)
    library = build(name)
    puts "#{name}: STAND_IN_SEED=#{seed}" unless name == "portable"
    environment = { "HYPERION_PLATFORM" => name, "STAND_IN_SEED" => seed.to_s }
    Dir.chdir(ROOT) do
      sh(environment, Gem.ruby, "-I", library, "-S", "rspec", "--require", "spec_helper", *specs(brief), verbose: false)
    end
  end

  def specs(brief)
    names = brief ? NEEDED : NEEDED + FURTHER
    [*names.map { |name| "spec/hyperion/http/sendfile/#{name}_spec.rb" }, "spec/platforms"]
  end

  # The folder to put into the load path.
  def build(name, environment = { "HYPERION_PLATFORM" => name })
    folder = File.join(ROOT, "tmp/platforms", name)
    rm_rf folder, verbose: false
    mkdir_p File.join(folder, "lib", File.dirname(FEATURE)), verbose: false
    Dir.chdir(folder) do
      configure(name, environment)
      sh "make", "-s", "V=0", verbose: false
    end
    product = "#{File.basename(FEATURE)}.#{RbConfig::CONFIG["DLEXT"]}"
    mv File.join(folder, product), File.join(folder, "lib", File.dirname(FEATURE), product), verbose: false
    File.join(folder, "lib")
  end

  def configure(name, environment)
    headers = File.join(STAND_INS, name)
    options = []
    options.push("--with-cppflags=-I#{headers}", "--with-dldflags=#{kernel(headers).join(" ")}") if Dir.exist?(headers)
    sh({ "HYPERION_STRICT" => "1", **environment }, Gem.ruby, Extension::EXTCONF, *options, out: File::NULL,
                                                                                            verbose: false)
  end

  # The object files of the stand-in kernel.
  def kernel(headers)
    [File.join(STAND_INS, "kernel.c"), File.join(headers, "sendfile.c")].map do |source|
      File.expand_path("#{File.basename(source, ".c")}_stand_in.o").tap do |object|
        sh(*RbConfig::CONFIG["CC"].shellsplit, *CFLAGS, "-I", headers, "-c", source, "-o", object, verbose: false)
      end
    end
  end
end
