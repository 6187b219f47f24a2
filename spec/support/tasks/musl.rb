# frozen_string_literal: true

# Compiles what of the extension needs no Ruby against musl, another C library of Linux, with warnings being errors.

require "English"
require "rake"
require "tmpdir"
require_relative "c_checks"

module Musl
  extend Rake::FileUtilsExt

  FLAGS = %w[-std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Wall -Wextra -Werror -O2].freeze
  ROOMS = %w[core os os/linux os/portable].freeze
  # The files for which extconf.rb looks whether the C library has something, and what that is.
  PROBED = { "resident_preadv2.c" => ["sys/uio.h", "RWF_NOWAIT"],
             "open_openat2.c" => ["sys/stat.h", "STATX_TYPE"] }.freeze

  module_function

  def check(sources)
    compiler = CChecks.executable("musl-gcc")
    return puts("musl-gcc is not installed: skipped") unless compiler

    Dir.mktmpdir("musl") do |folder|
      command = [compiler, *FLAGS, "-isystem", kernel_headers(folder), "-I", sources, "-I", File.join(sources, "core"),
                 "-c", "-o", File::NULL]
      files = Dir.glob(ROOMS.map { |room| File.join(sources, room, "*.c") })
      lacking, compiled = files.partition { |file| lacks?(command, *PROBED[File.basename(file)]) }
      compiled.each { |file| sh(*command, file, verbose: false) }
      puts "musl: no warnings#{", without #{lacking.map { |file| File.basename(file) }.join(", ")}" if lacking.any?}"
    end
  end

  def lacks?(command, header = nil, name = nil)
    return false unless header

    IO.popen([*command, "-x", "c", "-"], "w", err: File::NULL) { |c| c.puts("#include <#{header}>", "int x = #{name};") }
    !$CHILD_STATUS.success?
  end

  # musl brings none, and those of the C library of this machine lie beside that's own.
  def kernel_headers(folder)
    architecture = Dir.glob("/usr/include/{,*-linux-gnu/}asm").first || raise("the kernel's headers are not installed")
    %w[linux asm-generic].each { |name| File.symlink("/usr/include/#{name}", File.join(folder, name)) }
    File.symlink(architecture, File.join(folder, "asm"))
    folder
  end
end
