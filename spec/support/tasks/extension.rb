# frozen_string_literal: true

# Builds the extension into lib/ for the Rakefile, by what `gem install` runs: extconf.rb and make. Needs no gem.

require "etc"
require "fileutils"
require "rbconfig"

module Extension
  ROOT = File.expand_path("../../..", __dir__)
  SOURCES = File.join(ROOT, "ext/hyperion_sendfile")
  EXTCONF = File.join(SOURCES, "extconf.rb")
  NAME = "hyperion_sendfile.#{RbConfig::CONFIG["DLEXT"]}".freeze
  LIBRARY = File.join(ROOT, "lib/hyperion/http/sendfile", NAME)
  # One for each Ruby that builds in this checkout.
  OBJECTS = File.join(ROOT, "tmp/build", "#{RbConfig::CONFIG["arch"]}-#{RUBY_VERSION}")
  STAMP = File.join(OBJECTS, "configured")

  module_function

  def compile
    configure unless configured?
    make
    built = File.join(OBJECTS, NAME)
    raise "the extension was not built: #{reason}" unless File.exist?(built)

    # A new file, since processes may run with the old one.
    FileUtils.install(built, LIBRARY, mode: 0o755) unless File.exist?(LIBRARY) && FileUtils.identical?(built, LIBRARY)
  end

  # Make knows the .c files. What else they are made of makes them all anew.
  def configured?
    FileUtils.uptodate?(STAMP, [EXTCONF, *Dir.glob(File.join(SOURCES, "**/*.h"))]) && File.read(STAMP) == circumstances
  end

  # What extconf.rb looks at besides the system, and which files there are. HYPERION_HTTP_ are switches at run time.
  def circumstances
    [ENV.select { |name, _| name.match?(/\AHYPERION_(?!HTTP_)/) }.sort,
     Dir.glob("**/*.{c,h}", base: SOURCES).sort].inspect
  end

  def configure
    FileUtils.rm_rf(OBJECTS)
    FileUtils.mkdir_p(OBJECTS)
    succeeded = system(Gem.ruby, EXTCONF, chdir: OBJECTS)
    raise "the extension can't be configured: #{reason}" unless succeeded

    File.write(STAMP, circumstances)
  end

  def make
    command = [ENV.fetch("MAKE", "make"), "--silent", "-j#{Etc.nprocessors}", "V=0"]
    case system(*command, chdir: OBJECTS)
    when nil then raise "#{command.first} is not installed (Debian: build-essential)"
    when false then raise "the extension does not compile, see above"
    end
  end

  # Of extconf.rb's failure.
  def reason
    return "Ruby's headers are missing (Debian: ruby-dev)" unless headers?
    return "there is no working C compiler (Debian: build-essential)" unless compiler?

    "see above, and #{File.join(OBJECTS, "mkmf.log")}"
  end

  def headers?
    File.exist?(File.join(RbConfig::CONFIG["rubyhdrdir"].to_s, "ruby.h"))
  end

  def compiler?
    compiler = RbConfig::CONFIG["CC"].split.first
    IO.popen([compiler, "-x", "c", "-fsyntax-only", "-"], "w", %i[out err] => File::NULL) do |source|
      source.puts("#include <stdlib.h>")
    end
    Process.last_status.success?
  rescue SystemCallError
    false
  end
end
