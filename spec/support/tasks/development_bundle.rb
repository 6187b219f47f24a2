# frozen_string_literal: true

# Finds or installs the gems of the Gemfile for the Rakefile, and hands the process over to a rake that runs with them.
module DevelopmentBundle
  ROOT = File.expand_path("../../..", __dir__)
  GROUPS = %w[servers falcon lint types].freeze # those that can be left out
  STARTED = "HYPERION_RAKE_STARTED_FOR"

  # Why an installation failed, by what it printed. The first that matches is named.
  REASONS = {
    /Could not reach host|Network error|Could not fetch specs|getaddrinfo|Retrying .* due to error/ =>
      "There is no way to rubygems.org from here: `bundle install` needs the network once.",
    %r{openssl/ssl\.h|OpenSSL library could not be found|Missing required OpenSSL|extconf failed.*openssl}i =>
      "OpenSSL's headers are missing (Debian: libssl-dev). Falcon's dependency openssl is compiled with them.",
    /can't find header files for ruby/ => "Ruby's headers are missing (Debian: ruby-dev).",
    /You have to install development tools first|compiler failed to generate an executable/ =>
      "There is no working C compiler (Debian: build-essential).",
    /make[^\n]*(?:not found|No such file)|No such file or directory - make/ =>
      "There is no make (Debian: build-essential).",
    /ffi\.h|yaml\.h/ => "The headers of libffi or libyaml are missing (Debian: libffi-dev, libyaml-dev).",
    /because|version solving|Could not find compatible versions/i =>
      "The versions do not fit this Ruby. A Gemfile.lock left by another Ruby can be deleted."
  }.freeze

  module_function

  # Returns if this process has the gems, those of the groups included. Otherwise it does not return: a rake that has
  # them takes its place.
  def enter(*groups)
    return if entered?(groups)

    environment = environment(groups)
    abort "rake: `bundle exec` gave rake no bundle, see `bundle env`" if ENV[STARTED] == environment[STARTED]
    install(environment) unless present?(environment)
    Dir.chdir(Rake.original_dir)
    exec(environment, *bundler, "exec", "rake", *ARGV, unsetenv_others: true)
  end

  def inside?
    ENV.key?("BUNDLE_BIN_PATH")
  end

  # A process that somebody else gave a bundle to has what is in that.
  def entered?(groups)
    inside? && !groups.intersect?(left_out)
  end

  def left_out
    ENV.fetch("BUNDLE_WITHOUT", "").split(":")
  end

  # The whole environment for the groups, and for those that this process has.
  def environment(groups)
    outside = inside? ? Bundler.original_env : ENV.to_h
    without = (inside? ? left_out : GROUPS) - groups
    { "BUNDLE_GEMFILE" => File.join(ROOT, "Gemfile"), "BUNDLE_SILENCE_ROOT_WARNING" => "1" }
      .merge(outside.except("BUNDLE_WITHOUT"), without.empty? ? {} : { "BUNDLE_WITHOUT" => without.join(":") },
             STARTED => "with all but #{without}")
  end

  # Without a Gemfile.lock, Bundler would look for minutes for versions among those that are installed.
  def present?(environment)
    return false unless File.exist?("#{environment.fetch("BUNDLE_GEMFILE")}.lock")

    system(environment, *bundler, "check", %i[out err] => File::NULL, unsetenv_others: true)
  end

  def install(environment)
    warn "rake: installing what this task needs of gems (once)"
    unless path_configured?(environment) || gem_home_writable?
      system(environment, *bundler, "config", "set", "--local", "path", ".bundle/gems", unsetenv_others: true)
    end
    output, status = passed_on(environment, *bundler, "install")
    return if status.success?

    abort "\nrake: `bundle install` failed. #{reason(output) || "The reason is above."}"
  end

  # What a command prints, while it prints it and afterwards.
  def passed_on(environment, *command)
    output = +""
    IO.popen(environment, command, in: File::NULL, err: %i[child out], unsetenv_others: true) do |pipe|
      while (line = pipe.gets)
        $stderr.print(line)
        output << line
      end
    end
    [output, Process.last_status]
  end

  def reason(output)
    REASONS.find { |pattern, _| output.match?(pattern) }&.last
  end

  def path_configured?(environment)
    command = [*bundler, "config", "get", "path", "--parseable"]
    !IO.popen(environment, command, err: File::NULL, unsetenv_others: true, &:read).strip.empty?
  end

  # Without a place to write, Bundler asks for a password or fails, depending on its version.
  def gem_home_writable?
    [Gem.dir, Gem.bindir].all? do |path|
      path = File.dirname(path) until File.exist?(path)
      File.writable?(path)
    end
  end

  # The Bundler of the Ruby that runs now, which the first `bundle` in PATH need not be.
  def bundler
    @bundler ||= [Gem.ruby, Gem.bin_path("bundler", "bundle")]
  rescue Gem::GemNotFoundException
    abort "rake: #{Gem.ruby} has no Bundler (Debian: ruby-bundler)"
  end
end
