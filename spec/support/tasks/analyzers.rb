# frozen_string_literal: true

# Static analysis of the extension: gcc's, clang's, clang-tidy and cppcheck, each without a finding.

require "rake"
require "rbconfig"
require_relative "c_checks"

module Analyzers
  extend Rake::FileUtilsExt

  DEFINES = %w[-std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64].freeze
  RUBY_HEADERS = RbConfig::CONFIG.values_at("rubyhdrdir", "rubyarchhdrdir").flat_map { ["-isystem", _1] }.freeze

  # All that looks for mistakes, but for what can't be avoided here:
  TIDY = [
    "-*", "bugprone-*", "cert-*", "clang-analyzer-*", "concurrency-*", "misc-*", "performance-*", "portability-*",
    "-bugprone-easily-swappable-parameters", # a method's arguments are VALUEs, all of them
    "-bugprone-implicit-widening-of-multiplication-result", # of small constants
    "-performance-no-int-to-ptr", # a VALUE is an integer
    "-concurrency-mt-unsafe", # getenv, which is called under the GVL
    "-misc-include-cleaner", # it takes the headers of the C library apart
    "-misc-redundant-expression", # EAGAIN and EWOULDBLOCK are one here, and not everywhere
    "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling" # no C library here has the _s functions
  ].join(",").freeze

  module_function

  # @param sources [String] the folder of the extension
  # @param stand_ins [String] of the headers that other platforms have
  def run(sources, stand_ins)
    tools = { "gcc" => :gcc, "clang" => :clang, "clang-tidy" => :tidy, "cppcheck" => :cppcheck }
    tools.each do |name, method|
      executable = CChecks.executable(name)
      next puts("#{name} is not installed: skipped") unless executable

      groups(sources, stand_ins).each { |files, flags| send(method, executable, files, flags) }
      puts "#{name}: no findings"
    end
  end

  # Files with the flags that go with them: what is compiled here, and what elsewhere.
  def groups(sources, stand_ins)
    elsewhere = Dir.children(stand_ins).reject { |name| name.include?(".") }.sort.to_h do |name|
      [Dir.glob(File.join(sources, "os/#{name}/*.c")), ["-I", File.join(stand_ins, name), *DEFINES, *own(sources)]]
    end
    here = Dir.glob(File.join(sources, "**/*.c")) - elsewhere.keys.flatten
    { here => DEFINES + RUBY_HEADERS + own(sources), **elsewhere }
  end

  def own(sources)
    [sources, File.join(sources, "core"), File.join(sources, "ruby")].flat_map { |folder| ["-I", folder] }
  end

  # Without what extconf.rb finds out, each probe has the answer of older Rubies, whose struct newer ones deprecate.
  def gcc(gcc, files, flags)
    files.each do |file|
      sh gcc, "-fanalyzer", "-Werror", "-Wno-deprecated-declarations", "-O1", "-c", "-o", File::NULL, *flags, file,
         verbose: false
    end
  end

  def clang(clang, files, flags)
    files.each do |file|
      sh clang, "--analyze", "-Xclang", "-analyzer-output=text", "-Xclang", "-analyzer-werror", *flags, file, "-o",
         File::NULL, verbose: false
    end
  end

  def tidy(tidy, files, flags)
    sh tidy, "--quiet", "--checks=#{TIDY}", "--warnings-as-errors=*", *files, "--", *flags,
       err: File::NULL, verbose: false
  end

  def cppcheck(cppcheck, files, flags)
    defines = flags.grep(/\A-D/)
    sh cppcheck, "--enable=warning,performance,portability", "--error-exitcode=1", "--std=c11", "--quiet",
       "--suppress=missingIncludeSystem", *defines, *files, verbose: false
  end
end
