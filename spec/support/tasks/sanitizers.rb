# frozen_string_literal: true

# Runs the extension built to notice what it must not do (AddressSanitizer with UBSan), and a script under valgrind. The
# normal build stays as it is.

require "fileutils"
require "rake"
require "rbconfig"

module Sanitizers
  extend Rake::FileUtilsExt

  SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -U_FORTIFY_SOURCE " \
             "-g -O1"
  # Ruby's exceptions leave frames, and its fibers stacks, behind the sanitizer's back: on the stack of a fiber it sees
  # what was there before. So variables on the stack are looked at where there are no fibers.
  BUILDS = { "asan" => "#{SANITIZE} --param asan-stack=0", "asan-stack" => SANITIZE }.freeze
  FEATURE = "hyperion/http/sendfile/hyperion_sendfile"

  # mkmf takes flags from RbConfig alone, and the source directory from $0.
  CONFIGURE = <<~RUBY
    flags = ARGV.shift
    RbConfig::MAKEFILE_CONFIG["CFLAGS"] += " \#{flags}"
    RbConfig::MAKEFILE_CONFIG["LDSHARED"] += " \#{flags}"
    $0 = ARGV.shift
    load $0
  RUBY

  # Fails unless the process has that build, and no other.
  CHECK = "require 'hyperion-sendfile'; " \
          "exit File.read('/proc/self/maps').scan(/\\S*hyperion_sendfile.so/).uniq == ARGV"

  module_function

  # A command on the sanitized build +name+.
  def run(name, extconf, *command)
    library = build(name, BUILDS.fetch(name), extconf)
    runtimes = %w[libasan.so libubsan.so].map { |file| runtime(file) }
    reports = File.expand_path("tmp/#{name}/report")
    rm_f Dir.glob("#{reports}.*"), verbose: false
    environment = {
      "LD_PRELOAD" => runtimes.join(":"),
      # Ruby itself leaks at its end, and handles SIGSEGV.
      "ASAN_OPTIONS" => "detect_leaks=0:abort_on_error=1:handle_segv=0:use_sigaltstack=0:log_path=#{reports}",
      "UBSAN_OPTIONS" => "print_stacktrace=1",
      "RUBYOPT" => "#{ENV.fetch("RUBYOPT", nil)} #{first(library)}"
    }
    sh environment, Gem.ruby, "-Ilib", "-e", CHECK, "#{File.join(library, FEATURE)}.so", verbose: false
    sh(environment, *command, verbose: false) do |right, status|
      look_into(reports)
      raise "#{command.join(" ")}: #{status}" unless right
    end
  end

  # Of all processes; a warning (that fibers have stacks of their own) is no finding.
  def look_into(reports)
    findings = Dir.glob("#{reports}.*").map { |path| File.read(path) }.grep(/ERROR|runtime error/)
    raise findings.join("\n") if findings.any?
  end

  # So that all Ruby processes, those that specs start too, take this build whatever their load path.
  def first(library)
    "-I#{library} -r#{File.join(library, FEATURE)}.so"
  end

  # @return [String] a load path with the build
  def build(name, flags, extconf)
    extconf = File.expand_path(extconf)
    objects = File.expand_path("tmp/#{name}/objects")
    library = File.expand_path("tmp/#{name}/lib")
    mkdir_p [objects, File.dirname(File.join(library, FEATURE))], verbose: false
    chdir(objects, verbose: false) do
      sh Gem.ruby, "-rrbconfig", "-e", CONFIGURE, "--", flags, extconf, out: File::NULL, verbose: false
      sh "make", "--silent", "V=0", out: File::NULL, verbose: false
    end
    cp File.join(objects, "#{File.basename(FEATURE)}.so"), File.join(library, "#{FEATURE}.so"), verbose: false
    library
  end

  def runtime(file)
    path = IO.popen([RbConfig::CONFIG["CC"].split.first, "-print-file-name=#{file}"], &:read).chomp
    raise "#{file} is not installed" unless File.exist?(path)

    path
  end

  # A script under valgrind; what Ruby does by itself is suppressed.
  def valgrind(suppressions, script)
    return puts("valgrind is not installed: skipped") unless system("valgrind", "--version", out: File::NULL)

    sh({ "RUBYOPT" => nil }, "valgrind", "--quiet", "--error-exitcode=99", "--suppressions=#{suppressions}",
       "--max-stackframe=16777216", "--num-callers=12", "--fair-sched=yes", Gem.ruby, "-Ilib", script)
  end
end
