# frozen_string_literal: true

# Runs the whole suite by a Ruby that this machine hasn't, for the Rakefile: in a root of another Debian suite, which
# is made once and kept. The C is compiled there with warnings being errors.

require "fileutils"
require "open3"

class OtherRuby
  MIRROR = "http://deb.debian.org/debian"
  PACKAGES = %w[rake gcc libc6-dev libssl-dev make ca-certificates curl iproute2 openssl strace].freeze

  # The suite to bootstrap from, what to install of it, and what to do then. A release that is past its date will do.
  Recipe = Struct.new(:suite, :packages, :afterwards, keyword_init: true)
  RECIPES = {
    "3.3" => Recipe.new(suite: "trixie", packages: %w[ruby ruby-dev ruby-bundler], afterwards: []),
    "3.4" => Recipe.new(suite: "sid", packages: [], afterwards: [
                          "echo 'Acquire::Check-Valid-Until false;' > /etc/apt/apt.conf.d/99past-its-date",
                          "echo deb #{MIRROR} experimental main >> /etc/apt/sources.list",
                          "apt-get update -q",
                          "apt-get install -qy --no-install-recommends -t experimental ruby3.4 ruby3.4-dev",
                          "dpkg --remove --force-depends ruby3.3 libruby3.3", # whose gems it would take for its own
                          "ln -sf ruby3.4 /usr/bin/ruby",
                          "gem install --no-document bundler" # its own is older than this RubyGems, and warns
                        ])
  }.freeze

  # Private mounts, which go away with the command.
  ENTER = <<~SHELL
    set -e
    root=$1; shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LANG=C.UTF-8 \
      DEBIAN_FRONTEND=noninteractive BUNDLE_SILENCE_ROOT_WARNING=1 HYPERION_STRICT=1 sh -ec "$*"
  SHELL

  PATH = "#{ENV.fetch("PATH", "")}:/usr/sbin:/sbin".freeze
  CHECKOUT = File.expand_path("../../..", __dir__)
  NOT_COPIED = %w[.git .bundle tmp pkg Gemfile.lock *.so *.gem].freeze

  # There is no such Ruby to be had here, for this reason.
  class Unavailable < StandardError; end

  # Raises unless the suite passes. Where the Ruby can't be had it says so, which is all it does.
  def self.run(version)
    new(version).run
  rescue Unavailable => e
    puts "*" * 78, "SKIPPED, NOT PASSED: Ruby #{version}: #{e.message}", "*" * 78
  end

  def initialize(version)
    @version = version
    @recipe = RECIPES.fetch(version)
    cache = ENV.fetch("XDG_CACHE_HOME") { File.join(Dir.home, ".cache") }
    @root = File.join(cache, "hyperion-sendfile", "ruby-#{version}")
  end

  def run
    make unless File.exist?(@root)
    copy_checkout
    command = "cd /src && ruby -v && ruby -e 'RUBY_VERSION.start_with?(%q(#{@version}.)) or abort' && ruby -S rake"
    raise "the suite fails on Ruby #{@version}" unless system(*enter(@root, command))
  end

  private

  def make
    raise Unavailable, "only root can make it" unless Process.uid.zero?
    raise Unavailable, "debootstrap is not installed" unless executable?("debootstrap")
    raise Unavailable, "unshare is not installed" unless executable?("unshare")

    puts "making #{@root} (once)"
    part = "#{@root}.part"
    FileUtils.rm_rf(part)
    FileUtils.mkdir_p(part)
    attempt("debootstrap", "--variant=minbase", "--include=#{[*@recipe.packages, *PACKAGES].join(",")}", @recipe.suite,
            part, MIRROR)
    trust_as_here(part)
    @recipe.afterwards.each { |line| attempt(*enter(part, line)) }
    File.rename(part, @root)
  end

  def executable?(name)
    PATH.split(":").any? { |folder| File.executable?(File.join(folder, name)) }
  end

  def attempt(*command)
    output, status = Open3.capture2e({ "PATH" => PATH }, *command)
    return if status.success?

    raise Unavailable, "#{command.first(2).join(" ")} failed:\n#{output.lines.last(10).join}"
  end

  # Gems come by the way they come here: with the certificates that this machine trusts.
  def trust_as_here(root)
    certificates = ENV.fetch("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    FileUtils.cp(certificates, File.join(root, "etc/ssl/certs/ca-certificates.crt")) if File.file?(certificates)
  end

  def copy_checkout
    FileUtils.rm_rf(File.join(@root, "src"))
    FileUtils.mkdir_p(File.join(@root, "src"))
    excluded = NOT_COPIED.map { |pattern| "--exclude=#{pattern}" }
    copied = Open3.pipeline(["tar", "-C", CHECKOUT, *excluded, "-cf", "-", "."],
                            ["tar", "-C", File.join(@root, "src"), "-xf", "-"])
    raise "can't copy #{CHECKOUT}" unless copied.all?(&:success?)
  end

  def enter(root, line)
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter", root, line]
  end
end
