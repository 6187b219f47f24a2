# frozen_string_literal: true

# Runs the whole suite by a Ruby that this machine hasn't, for the Rakefile, in a root of another Debian suite. The C is
# compiled there with warnings being errors.

require_relative "debian_root"

class OtherRuby
  PACKAGES = %w[rake gcc libc6-dev libssl-dev make ca-certificates curl iproute2 openssl strace].freeze

  # The suite to bootstrap from, what to install of it, and what to do then. A release that is past its date will do.
  Recipe = Struct.new(:suite, :packages, :afterwards, keyword_init: true)
  RECIPES = {
    "3.3" => Recipe.new(suite: "trixie", packages: %w[ruby ruby-dev ruby-bundler], afterwards: []),
    "3.4" => Recipe.new(suite: "sid", packages: [], afterwards: [
                          "echo 'Acquire::Check-Valid-Until false;' > /etc/apt/apt.conf.d/99past-its-date",
                          "echo deb #{DebianRoot::MIRROR} experimental main >> /etc/apt/sources.list",
                          "apt-get update -q",
                          "apt-get install -qy --no-install-recommends -t experimental ruby3.4 ruby3.4-dev",
                          "dpkg --remove --force-depends ruby3.3 libruby3.3", # whose gems it would take for its own
                          "ln -sf ruby3.4 /usr/bin/ruby",
                          "gem install --no-document bundler" # its own is older than this RubyGems, and warns
                        ])
  }.freeze

  # Raises unless the suite passes. Where the Ruby can't be had it says so, which is all it does.
  def self.run(version)
    DebianRoot.or_skip("Ruby #{version}") { new(version).run }
  end

  def initialize(version)
    @version = version
    recipe = RECIPES.fetch(version)
    @root = DebianRoot.new("ruby-#{version}", suite: recipe.suite, packages: [*recipe.packages, *PACKAGES],
                                              afterwards: recipe.afterwards)
  end

  def run
    @root.make
    @root.copy_checkout
    command = "cd /src && ruby -v && ruby -e 'RUBY_VERSION.start_with?(%q(#{@version}.)) or abort' && ruby -S rake"
    raise "the suite fails on Ruby #{@version}" unless @root.run(command)
  end
end
