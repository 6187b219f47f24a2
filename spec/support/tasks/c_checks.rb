# frozen_string_literal: true

# Compiler checks of the extension for the Rakefile: strict builds.

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
end
