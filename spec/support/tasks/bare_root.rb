# frozen_string_literal: true

# Tries README's two commands for the Rakefile as somebody does who has a Debian and nothing else: the packages that
# README names, then `rake demo`, then `rake`. Then takes away one thing at a time: what fails has to say so. The roots
# stay as debootstrap made them, since each try is written elsewhere.

require "fileutils"
require "tmpdir"
require_relative "debian_root"

class BareRoot
  SUITES = %w[bookworm trixie sid].freeze
  README = File.join(DebianRoot::CHECKOUT, "README.md")

  # A release that is past its date will do, and gems come by the certificates that this machine trusts, of which
  # Debian's Bundler 4 hears by its own setting alone.
  PREPARE = <<~SHELL
    echo 'Acquire::Check-Valid-Until false;' > /etc/apt/apt.conf.d/99past-its-date
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt /etc/ssl/this-machine.crt
    export SSL_CERT_FILE=/etc/ssl/this-machine.crt BUNDLE_SSL_CA_CERT=/etc/ssl/this-machine.crt
    log() { "$@" > /tmp/log 2>&1 || { tail -n 20 /tmp/log; exit 1; }; }
    log apt-get update -q
  SHELL

  # Files that are hidden, the command that can't succeed then, and what it has to say.
  COMPILER = "/usr/bin/*gcc* /usr/bin/cc"
  BUNDLER = "/usr/share/rubygems-integration/all/specifications/bundler-* " \
            "/usr/lib/ruby/gems/*/specifications/default/bundler-*"
  LACKS = [
    ["/usr/include/ruby-*", "rake demo", /Ruby's headers are missing \(Debian: ruby-dev\)/],
    [COMPILER, "rake demo", /no working C compiler \(Debian: build-essential\)/],
    ["/usr/bin/make", "rake demo", /make is not installed \(Debian: build-essential\)/],
    [BUNDLER, "rake", /has no Bundler \(Debian: ruby-bundler\)/],
    ["", "unshare --net rake", /no way to rubygems\.org from here/],
    ["/usr/include/ruby-*", "rake", /Ruby's headers are missing \(Debian: ruby-dev\)/],
    [COMPILER, "rake", /no working C compiler \(Debian: build-essential\)/],
    ["", "rake spec:servers", /OpenSSL's headers are missing \(Debian: libssl-dev\)/]
  ].freeze

  def self.try(suite)
    new(suite).try
  end

  def initialize(suite)
    @root = DebianRoot.new("bare-#{suite}", suite: suite, packages: [])
    @suite = suite
  end

  # Raises Unavailable where there can be no such root.
  def try
    @root.make
    succeeds(packages, "rake demo", "rake")
  end

  # With one thing hidden after the other.
  def try_lacking
    @root.make
    lines = [PREPARE, "log #{packages}", "cd /src", *LACKS.map { |hidden, command,| lacking(hidden, command) }]
    output, = scratch { |source, scratch| @root.capture(lines.join("\n"), source: source, scratch: scratch) }
    _, *outputs = output.split(/^== .*\n/)
    raise "the tries did not end:\n#{output}" unless outputs.size == LACKS.size

    wrong = LACKS.zip(outputs).filter_map { |lack, each| judge(*lack, each) }
    raise wrong.join("\n") if wrong.any?
  end

  private

  # The line of README.
  def packages
    File.read(README)[/\*\*Debian, Ubuntu:\*\* `(apt-get install [^`]+)`/, 1].sub("install", "install -qy")
  end

  def succeeds(installation, *commands)
    timed = commands.map do |command|
      "echo '== #{@suite}: #{command}'; begun=$(date +%s); DEMO_MIB=8 #{command}; " \
        "echo \"== #{@suite}: #{command}: $(($(date +%s) - begun)) s\""
    end
    scratch do |source, scratch|
      line = [PREPARE, "log #{installation}", "cd /src", "ruby -v", *timed].join("\n")
      raise "README's commands fail on a bare #{@suite}" unless @root.run(line, source: source, scratch: scratch)
    end
  end

  def lacking(hidden, command)
    <<~SHELL
      echo '== #{command}'
      hidden=$(ls -d #{hidden} 2>/dev/null || true)
      [ "#{hidden}" ] || hidden=
      for path in $hidden; do mv "$path" "$path.hidden"; done
      rm -rf tmp .bundle Gemfile.lock
      #{command} 2>&1 && echo succeeded
      for path in $hidden; do mv "$path.hidden" "$path"; done
    SHELL
  end

  # @return [String, nil] what is wrong
  def judge(hidden, command, reason, output)
    return "#{command} succeeds without #{hidden}" if output.end_with?("succeeded\n")

    tail = output.lines.last(20).join
    return "#{command} does not say #{reason.source} without #{hidden}:\n#{tail}" unless output.match?(reason)

    puts "#{@suite}: #{command}: #{output[reason]}"
  end

  def scratch
    folder = FileUtils.mkdir_p(File.join(DebianRoot::CHECKOUT, "tmp/bare")).first
    Dir.mktmpdir(@suite, folder) do |directory|
      source = File.join(directory, "src")
      @root.copy_checkout(source)
      yield source, FileUtils.mkdir_p(File.join(directory, "scratch")).first
    end
  end
end
