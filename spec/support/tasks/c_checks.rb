# frozen_string_literal: true

# Compiler checks of the extension for the Rakefile: strict builds, and a look at the platforms this machine is not.

require "rake"
require "rbconfig"
require "tmpdir"

module CChecks
  extend Rake::FileUtilsExt

  # mkmf takes the compiler from RbConfig alone, and the source directory from $0.
  CONFIGURE = <<~RUBY
    RbConfig::MAKEFILE_CONFIG["CC"] = RbConfig::CONFIG["CC"] = ARGV.shift
    $0 = ARGV.shift
    load $0
  RUBY

  LINUX_ONLY = %w[splice.c ktls.c cork.c cached_openat2.c].freeze

  module_function

  # The path of a command, or of its highest Debian version (clang-14), or nil.
  def executable(name)
    directories = ENV.fetch("PATH", "").split(File::PATH_SEPARATOR)
    [name, "#{name}-[0-9]*"].each do |pattern|
      found = directories.flat_map { |directory| Dir.glob(pattern, base: directory).map { File.join(directory, _1) } }
      found.select! { |path| path.match?(/#{Regexp.escape(name)}(-\d+)?\z/) && File.executable?(path) }
      return found.max_by { |path| path[/\d+\z/].to_i } unless found.empty?
    end
    nil
  end

  def strict_builds(extconf)
    compilers = %w[gcc clang].filter_map { |name| executable(name) }
    raise "neither gcc nor clang is installed" if compilers.empty?

    compilers.each { |compiler| strict_build(compiler, File.expand_path(extconf)) }
  end

  def strict_build(compiler, extconf)
    Dir.mktmpdir("strict") do |directory|
      chdir(directory, verbose: false) do
        sh({ "HYPERION_STRICT" => "1" }, Gem.ruby, "-rrbconfig", "-e", CONFIGURE, compiler, extconf, verbose: false)
        check_flags(compiler, extconf)
        sh "make", "-s", "V=0", verbose: false
      end
    end
    puts "#{compiler}: no warnings"
  end

  # What make would run, since a Makefile may define flags and not use them: then the build proves nothing.
  def check_flags(compiler, extconf)
    compilations = IO.popen(["make", "-n", "V=1"], &:readlines).grep(/ -c /)
    strict, lax = compilations.partition do |line|
      line.include?(compiler) && (%w[-Wall -Wextra -Werror] - line.split).empty?
    end
    raise "#{extconf} makes #{compiler} strict nowhere" if strict.empty?
    raise "#{extconf} leaves #{compiler} lax: #{lax.first}" unless lax.empty?
  end

  # Each folder NAME of stand-ins declares what os_NAME.c calls and this machine lacks; the Ruby-free files are looked
  # at in that light. os_portable.c needs none, so there the rest is looked at too.
  def platform_syntax(sources, stand_ins)
    names = Dir.glob("os_*.c", base: sources).map { |file| file[/os_(.+)\.c/, 1] } - %w[linux]
    names |= Dir.children(stand_ins) if Dir.exist?(stand_ins)
    names.sort.each do |name|
      folder = File.join(stand_ins, name)
      raise "no stand-in headers for os_#{name}.c in #{stand_ins}" unless name == "portable" || Dir.exist?(folder)

      platform_files(sources, name).each { |file| check_syntax(file, folder) }
      puts "#{name}: no warnings"
    end
  end

  def platform_files(sources, name)
    shared = Dir.glob("*.c", base: sources).reject { |file| file.start_with?("os_") || LINUX_ONLY.include?(file) }
    shared.reject! { |file| File.read(File.join(sources, file)).include?("<ruby.h>") } unless name == "portable"
    ["os_#{name}.c", *shared.sort].map { |file| File.join(sources, file) }
  end

  def check_syntax(file, folder)
    ruby_headers = RbConfig::CONFIG.values_at("rubyhdrdir", "rubyarchhdrdir").flat_map { |path| ["-isystem", path] }
    sh("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64",
       "-I", folder, *ruby_headers, file, verbose: false)
  end
end
