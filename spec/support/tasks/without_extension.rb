# frozen_string_literal: true

# Runs the specs of what works without the extension, for the Rakefile: by this Ruby, as if it had not been built, and
# by JRuby, which can't build it.

require "rake"
require_relative "parallel_specs"

module WithoutExtension
  extend Rake::FileUtilsExt

  ROOT = File.expand_path("../../..", __dir__)
  MASK = File.join(ROOT, "spec/support/without_extension")
  SPECS = %w[delivers_every_byte edges errors timeout truncated facade peer_gone close
             data_frames data_frames_ends].freeze
  JRUBY = ["jruby-jars", "~> 9.4.0"].freeze
  # Without these the JVM keeps descriptors to itself.
  JVM = %w[-XX:TieredStopAtLevel=1 -Xmx600m --add-opens=java.base/sun.nio.ch=ALL-UNNAMED
           --add-opens=java.base/java.io=ALL-UNNAMED].freeze

  # There is no JRuby to be had here, for this reason.
  class Unavailable < StandardError; end

  module_function

  def spec
    Dir.chdir(ROOT) do
      environment = { "RUBYOPT" => "#{ENV.fetch("RUBYOPT", nil)} -I#{MASK}" }
      ParallelSpecs.run("--tag ~patience", *files, environment: environment)
    end
  end

  def spec_on_jruby
    jars = jruby_jars
    libraries = %w[rspec-core rspec-expectations rspec-mocks rspec-support rspec diff-lcs].map do |name|
      Gem.loaded_specs.fetch(name).full_require_paths
    end
    Dir.chdir(ROOT) do
      Bundler.with_unbundled_env do
        sh("java", *JVM, "-cp", jars.join(":"), "org.jruby.Main",
           *["lib", "spec", *libraries.flatten].flat_map { |path| ["-I", path] },
           "-e", "require 'rspec/core'; exit RSpec::Core::Runner.run(ARGV)", "--",
           "--require", "spec_helper", "--tag", "~patience", *files, verbose: false)
      end
    end
  rescue Unavailable => e
    puts "*" * 78, "SKIPPED, NOT PASSED: JRuby: #{e.message}", "*" * 78
  end

  def files
    SPECS.map { |name| "spec/hyperion/http/sendfile/#{name}_spec.rb" }
  end

  # Installed once, apart from this Ruby's gems.
  def jruby_jars
    raise Unavailable, "java is not installed" unless system("java", "-version", %i[out err] => File::NULL)

    cache = File.join(ENV.fetch("XDG_CACHE_HOME") { File.join(Dir.home, ".cache") }, "hyperion-sendfile", "jruby")
    install(cache) if jars_in(cache).empty?
    jars_in(cache)
  end

  def jars_in(folder)
    Dir.glob(File.join(folder, "gems/jruby-jars-9.4.*/lib/*.jar"))
  end

  def install(folder)
    puts "fetching JRuby into #{folder} (once)"
    Bundler.with_unbundled_env do
      command = [Gem.ruby, "-S", "gem", "install", "--no-document", "--install-dir", folder,
                 JRUBY.first, "--version", JRUBY.last]
      raise Unavailable, "#{JRUBY.first} can't be fetched" unless system(*command)
    end
  end
end
