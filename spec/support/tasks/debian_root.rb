# frozen_string_literal: true

# A root of its own for a Debian suite, and commands run in it. It is made once and kept in the cache.

require "digest"
require "fileutils"
require "open3"
require_relative "debian_packages"

class DebianRoot
  MIRROR = DebianPackages::MIRROR

  # The mounts are private: they go away with the command. With a scratch folder, what is written goes there: in an
  # overlay, or in a copy where this machine can't mount one over its own.
  ENTER = <<~SHELL
    set -e
    root=$1 source=$2 scratch=$3; shift 3
    if [ "$scratch" ]; then
      mkdir "$scratch/written" "$scratch/work" "$scratch/root" "$scratch/tmp"
      layers="lowerdir=$root,upperdir=$scratch/written,workdir=$scratch/work"
      mount -t overlay overlay -o "$layers" "$scratch/root" 2>/dev/null || cp -a "$root/." "$scratch/root"
      root=$scratch/root
      mount --bind "$scratch/tmp" "$root/tmp" # where files can say whether they are cached
      chmod 1777 "$root/tmp"
    fi
    if [ "$source" ]; then mkdir -p "$root/src"; mount --bind "$source" "$root/src"; fi
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LANG=C.UTF-8 \
      DEBIAN_FRONTEND=noninteractive BUNDLE_SILENCE_ROOT_WARNING=1 HYPERION_STRICT=1 sh -ec "$*"
  SHELL

  PATH = "#{ENV.fetch("PATH", "")}:/usr/sbin:/sbin".freeze
  CHECKOUT = File.expand_path("../../..", __dir__)
  KEPT = %w[.bundle tmp Gemfile.lock].freeze # by an earlier copy
  NOT_COPIED = %w[.git .bundle tmp pkg Gemfile.lock *.so *.gem].freeze

  Unavailable = DebianPackages::Unavailable

  # Runs the block; where the root can't be had, says that +what+ was skipped, which is all it does then. With
  # HYPERION_SKIP_NOTHING=1 it fails.
  def self.or_skip(what)
    yield
  rescue Unavailable => e
    raise if ENV["HYPERION_SKIP_NOTHING"] == "1"

    puts "*" * 78, "SKIPPED, NOT PASSED: #{what}: #{e.message}", "*" * 78
  end

  attr_reader :path

  # +name+ is that of its folder, +afterwards+ lines of shell that complete it. A recipe that was changed makes another
  # root.
  def initialize(name, suite:, packages:, afterwards: [])
    cache = ENV.fetch("XDG_CACHE_HOME") { File.join(Dir.home, ".cache") }
    recipe = Digest::SHA256.hexdigest([suite, packages, afterwards].inspect)[0, 8]
    @path = File.join(cache, "hyperion-sendfile", "#{name}-#{recipe}")
    @suite = suite
    @packages = packages
    @afterwards = afterwards
  end

  # Makes it, unless that was done before. Raises Unavailable where it can't be made.
  def make
    return if File.exist?(@path)

    check_tools
    puts "making #{@path} (once)"
    part = "#{@path}.#{Process.pid}"
    FileUtils.mkdir_p(part)
    bootstrap(part)
    File.rename(part, @path)
  ensure
    FileUtils.rm_rf(part) if part
  end

  # @param source [String, nil] the folder that is /src there
  # @param scratch [String, nil] an empty folder for what the command writes; otherwise it writes into the root
  # @return [Boolean, nil] as Kernel#system
  def run(line, source: nil, scratch: nil)
    system(*enter(@path, line, source, scratch))
  end

  # What the command prints, and whether it succeeded.
  def capture(line, source: nil, scratch: nil)
    output, status = Open3.capture2e(*enter(@path, line, source, scratch))
    [output, status.success?]
  end

  # A copy of the checkout: by itself /src. What another Ruby has built in an earlier copy is not among it.
  def copy_checkout(source = File.join(@path, "src"))
    FileUtils.mkdir_p(source)
    Dir.each_child(source) { |name| FileUtils.rm_rf(File.join(source, name)) unless KEPT.include?(name) }
    excluded = NOT_COPIED.map { |pattern| "--exclude=#{pattern}" }
    copied = Open3.pipeline(["tar", "-C", CHECKOUT, *excluded, "-cf", "-", "."], ["tar", "-C", source, "-xf", "-"])
    raise "can't copy #{CHECKOUT}" unless copied.all?(&:success?)
  end

  private

  def check_tools
    raise Unavailable, "only root can make it" unless Process.uid.zero?

    %w[debootstrap unshare].each { |name| raise Unavailable, "#{name} is not installed" unless executable?(name) }
  end

  def bootstrap(part)
    options = ["--variant=minbase"]
    options << "--include=#{@packages.join(",")}" if @packages.any?
    attempt("debootstrap", *options, @suite, part, MIRROR)
    trust_as_here(part)
    complete(part)
  end

  def complete(part)
    @afterwards.each { |line| attempt(*enter(part, line)) }
  end

  def executable?(name)
    PATH.split(":").any? { |folder| File.executable?(File.join(folder, name)) }
  end

  def attempt(*command)
    DebianPackages.attempt({ "PATH" => PATH }, *command)
  end

  # Gems come by the way they come here: with the certificates that this machine trusts.
  def trust_as_here(root)
    certificates = ENV.fetch("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    return unless File.file?(certificates)

    folder = File.join(root, "etc/ssl/certs")
    FileUtils.mkdir_p(folder)
    FileUtils.cp(certificates, File.join(folder, "ca-certificates.crt"))
  end

  def enter(root, line, source = nil, scratch = nil)
    places = [root, source.to_s, scratch.to_s]
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter", *places, line]
  end
end
