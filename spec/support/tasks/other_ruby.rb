# frozen_string_literal: true

# Runs the checkout's tasks by a Ruby that this machine hasn't, for the Rakefile and .ci/run, in a root of another
# Debian suite. The C is compiled there with warnings being errors.

require_relative "debian_root"

class OtherRuby
  PACKAGES = %w[rake gcc libc6-dev libssl-dev make ca-certificates curl iproute2 openssl strace].freeze
  # What the tasks of the development Ruby use besides.
  TOOLS = %w[clang clang-format clang-tidy cppcheck g++ git gnuplot-nox haproxy musl-tools nghttp2-client nginx-light
             procps valgrind wrk].freeze
  BROWSER = %w[chromium ffmpeg].freeze # where they can't be had, spec:browser says that it was skipped
  INSTALL = "apt-get install -qy --no-install-recommends"

  # An empty package in the place of one that others depend on: of Ruby 3.3, whose gems 3.4 would take for its own.
  EMPTY = <<~SHELL
    mkdir -p /tmp/%<name>s/DEBIAN
    {
      echo "Package: %<name>s"
      echo "Version: 99"
      echo "Architecture: $(dpkg --print-architecture)"
      echo "Multi-Arch: same"
      echo "Maintainer: nobody <nobody@localhost>"
      echo "Description: empty"
    } > /tmp/%<name>s/DEBIAN/control
    dpkg-deb --build /tmp/%<name>s
    dpkg --install /tmp/%<name>s.deb
  SHELL

  # The suite to bootstrap from, what to install of it, and what to do then. A release that is past its date will do.
  Recipe = Struct.new(:suite, :packages, :afterwards, keyword_init: true)
  RECIPES = {
    "3.3" => Recipe.new(suite: "trixie", packages: %w[ruby ruby-dev ruby-bundler], afterwards: []),
    "3.4" => Recipe.new(suite: "sid", packages: [], afterwards: [
                          "echo 'Acquire::Check-Valid-Until false;' > /etc/apt/apt.conf.d/99past-its-date",
                          "echo deb #{DebianRoot::MIRROR} experimental main >> /etc/apt/sources.list",
                          "apt-get update -q",
                          "#{INSTALL} -t experimental ruby3.4 ruby3.4-dev",
                          *%w[ruby3.3 libruby3.3].map { |name| format(EMPTY, name: name) },
                          "ln -sf ruby3.4 /usr/bin/ruby",
                          "gem install --no-document bundler", # its own is older than this RubyGems, and warns
                          "#{INSTALL} #{TOOLS.join(" ")}",
                          "#{INSTALL} #{BROWSER.join(" ")} || apt-get clean"
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

  # In a copy of this checkout, which the next run goes on with. Raises Unavailable where the root can't be made.
  def run(command = "rake")
    @root.make
    copy = File.join(DebianRoot::CHECKOUT, "tmp/matrix", @version)
    @root.copy_checkout(copy)
    right = "ruby -e 'RUBY_VERSION.start_with?(%q(#{@version}.)) or abort RUBY_DESCRIPTION'"
    raise "#{command} fails on Ruby #{@version}" unless @root.run("cd /src && #{right} && #{command}", source: copy)
  end
end
