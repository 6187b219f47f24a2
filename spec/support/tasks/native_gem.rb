# frozen_string_literal: true

# Builds gems that come compiled, for the Rakefile: one for each processor, with an extension for each Ruby that Debian
# has for it. Everybody else takes the gem of the sources. Then tries each where there is no compiler.

require "fileutils"
require "rubygems/package"
require "tmpdir"
require_relative "machine_root"

class NativeGem
  # What Debian calls an architecture, and RubyGems.
  PLATFORMS = { "amd64" => "x86_64-linux-gnu", "arm64" => "aarch64-linux-gnu" }.freeze

  # The Rubies, without a gap between them, since RubyGems would take this gem for what lies in one: the suites that
  # have it, what it is called there, and what of it compiles.
  Recipe = Struct.new(:suite, :ruby, :headers)
  RUBIES = {
    "3.3" => Recipe.new("trixie", "ruby", "ruby-dev"),
    "3.4" => Recipe.new(%w[sid experimental], "ruby3.4", "ruby3.4-dev")
  }.freeze
  # Below it RubyGems takes one C library for the other.
  RUBYGEMS = ">= 3.3.22"
  # The C library that is enough: that of Debian 12, Ubuntu 22.04 and RHEL 9.
  GLIBC = "2.34"

  CHECKOUT = DebianRoot::CHECKOUT
  GEMSPEC = File.join(CHECKOUT, "hyperion-sendfile.gemspec")

  # Raises unless it works. Where it can't be built it says so, which is all it does.
  def self.run(architecture)
    DebianRoot.or_skip("the gem compiled for #{PLATFORMS.fetch(architecture)}") do
      new(architecture).then { |gem| gem.try(gem.build) }
    end
  end

  def initialize(architecture)
    @architecture = architecture
    @platform = PLATFORMS.fetch(architecture)
    @stage = File.join(CHECKOUT, "tmp/native", @platform)
  end

  # @return [String] the path of the gem, in pkg/
  def build
    FileUtils.rm_rf(@stage)
    specification.files.each { |path| place(File.join(CHECKOUT, path), path) }
    RUBIES.each { |version, recipe| place(compile(version, recipe), library(version)) }
    specification.then do |spec|
      spec.files += RUBIES.keys.map { |version| library(version) }
      package = File.join(CHECKOUT, "pkg", "#{spec.name}-#{spec.version}-#{@platform}.gem")
      FileUtils.mkdir_p(File.dirname(package))
      Dir.chdir(@stage) { Gem::Package.build(spec, false, false, package) }
      package
    end
  end

  # Where there is Ruby and nothing else.
  def try(package)
    RUBIES.each do |version, recipe|
      puts "#{File.basename(package)} by Ruby #{version}:"
      root = root("bare-#{recipe.ruby}", recipe, [recipe.ruby], compiler: false)
      Dir.mktmpdir("native-gem") do |source|
        FileUtils.cp([package, File.join(__dir__, "packaged_gem.rb")], source)
        raise "it does not work" unless root.run(<<~SHELL, source: source)
          if command -v cc || command -v gcc || command -v make; then exit 1; fi
          export GEM_HOME=/tmp/gems GEM_PATH=/tmp/gems
          rm -rf $GEM_HOME
          #{recipe.ruby.sub("ruby", "gem")} install --local --no-document /src/#{File.basename(package)}
          #{recipe.ruby} -w /src/packaged_gem.rb true
        SHELL
      end
    end
  end

  private

  def specification
    spec = Gem::Specification.load(GEMSPEC).dup
    spec.files = spec.files.grep_v(%r{\Aext/})
    spec.extensions = []
    spec.platform = @platform
    spec.required_ruby_version = [">= #{RUBIES.keys.first}", "< #{RUBIES.keys.last.succ}.dev"]
    spec.required_rubygems_version = RUBYGEMS
    spec
  end

  def library(version)
    "lib/hyperion/http/sendfile/#{version}/hyperion_sendfile.so"
  end

  def place(file, path)
    target = File.join(@stage, path)
    FileUtils.mkdir_p(File.dirname(target))
    FileUtils.cp(file, target)
  end

  def compile(version, recipe)
    root = root("compiling-#{recipe.ruby}", recipe, [recipe.ruby, recipe.headers])
    built = "/tmp/hyperion_sendfile"
    raise "it does not compile for Ruby #{version}" unless root.run(<<~SHELL, source: CHECKOUT)
      rm -rf #{built} && mkdir #{built} && cd #{built}
      #{recipe.ruby} /src/ext/hyperion_sendfile/extconf.rb --with-dldflags=-Wl,-s >/dev/null
      make --silent -j2 V=0
    SHELL

    File.join(root.path, built, "hyperion_sendfile.so").tap { |file| check_library(file) }
  end

  def check_library(file)
    needed = File.binread(file).scan(/GLIBC_(\d+(?:\.\d+)+)/).flatten.max_by { |version| Gem::Version.new(version) }
    raise "it needs glibc #{needed}" if Gem::Version.new(needed) > Gem::Version.new(GLIBC)

    puts "#{@platform}: compiled, needs glibc #{needed}"
  end

  def root(name, recipe, packages, compiler: true)
    MachineRoot.new("#{name}-#{@architecture}", architecture: @architecture, suite: recipe.suite, packages: packages,
                                                compiler: compiler).tap(&:make)
  end
end
