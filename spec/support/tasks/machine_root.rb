# frozen_string_literal: true

# A root of any architecture: the kernel has qemu emulate foreign programs. Its packages are unpacked rather than
# installed, and its compiler is a cross compiler that this processor runs itself: emulation would take minutes for
# either.

require_relative "debian_root"

class MachineRoot < DebianRoot
  # Of each architecture of Debian's: what qemu calls it, and its cross compiler.
  Architecture = Struct.new(:emulator, :compiler)
  ARCHITECTURES = {
    "amd64" => Architecture.new("qemu-x86_64", "gcc-x86-64-linux-gnu"),
    "i386" => Architecture.new("qemu-i386", "gcc-i686-linux-gnu"),
    "arm64" => Architecture.new("qemu-aarch64", "gcc-aarch64-linux-gnu"),
    "s390x" => Architecture.new("qemu-s390x", "gcc-s390x-linux-gnu")
  }.freeze
  RUN_BY = { "amd64" => %w[amd64 i386] }.freeze

  BASE = %w[base-files coreutils dash].freeze
  COMPILING = %w[libc6-dev make].freeze
  MERGED = %w[bin lib lib64 sbin].freeze
  BINFMT = "/proc/sys/fs/binfmt_misc"

  # +suite+ may be several that complete each other.
  def initialize(name, architecture:, suite:, packages:, afterwards: [], compiler: true)
    super(name, suite: suite, packages: [*BASE, *(COMPILING if compiler), *packages], afterwards: afterwards)
    @name = architecture
    @compiler = compiler
    @architecture = ARCHITECTURES.fetch(architecture)
    @machine = DebianPackages.architecture
  end

  def make
    register_emulator if emulated?
    super
  end

  def emulated?
    !RUN_BY.fetch(@machine, [@machine]).include?(@name)
  end

  private

  def check_tools
    raise Unavailable, "only root can make it" unless Process.uid.zero?
  end

  def bootstrap(part)
    MERGED.each do |folder|
      FileUtils.mkdir_p(File.join(part, "usr", folder))
      File.symlink("usr/#{folder}", File.join(part, folder))
    end
    unpack(@packages, @name, part)
    unpack([@name == @machine ? "gcc" : @architecture.compiler], @machine, part) if @compiler
    stand_in_for_installation(part)
    complete(part)
  end

  def unpack(packages, architecture, part)
    DebianPackages.unpack(packages, into: part, suite: @suite, architecture: architecture)
  end

  # What the packages would have made while they were installed, as far as it is needed.
  def stand_in_for_installation(part)
    FileUtils.mkdir_p(%w[dev proc root sys usr/local/bin].map { |folder| File.join(part, folder) })
    FileUtils.mkdir_p(File.join(part, "tmp"), mode: 0o1777)
    File.write(File.join(part, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
    %w[hosts resolv.conf].each { |file| FileUtils.cp("/etc/#{file}", File.join(part, "etc", file)) }
    trust_as_here(part)
  end

  # Lasts until the machine is started anew.
  def register_emulator
    handler = File.join(BINFMT, @architecture.emulator)
    return if File.exist?(handler)

    raise Unavailable, "only root can register its emulator" unless Process.uid.zero?

    attempt("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT) unless File.exist?(File.join(BINFMT, "register"))
    attempt("update-binfmts", "--enable", @architecture.emulator)
    raise Unavailable, "qemu-user-static and binfmt-support are not installed" unless File.exist?(handler)
  end
end
