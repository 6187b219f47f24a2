# frozen_string_literal: true

# Unpacks packages of any Debian suite and architecture into a folder, by this machine's own apt and dpkg-deb. Nothing
# of them is run, so it takes seconds for a foreign architecture, too.

require "fileutils"
require "open3"
require "tmpdir"

module DebianPackages
  MIRROR = "http://deb.debian.org/debian"
  KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

  # They can't be had here, for this reason.
  class Unavailable < StandardError; end

  module_function

  # With what they depend on, as on a machine that has nothing yet. +suite+ may be several that complete each other.
  def unpack(packages, into:, suite:, architecture:)
    Dir.mktmpdir("debian-packages") do |state|
      environment = { "APT_CONFIG" => configuration(state, suite, architecture), "DEBIAN_FRONTEND" => "noninteractive" }
      attempt(environment, "apt-get", "update", "-q")
      attempt(environment, "apt-get", "install", "-qy", "--download-only", *packages)
      Dir.glob(File.join(state, "archives/*.deb")) { |archive| attempt({}, "dpkg-deb", "-x", archive, into) }
    end
  end

  # This machine's own.
  def architecture
    attempt({}, "dpkg", "--print-architecture").chomp
  end

  # Nothing of this machine's own apt is read or changed. A release that is past its date will do.
  def configuration(state, suite, architecture)
    FileUtils.mkdir_p(%w[lists/partial archives/partial etc].map { |folder| File.join(state, folder) })
    sources = Array(suite).map { |name| "deb [signed-by=#{KEYRING}] #{MIRROR} #{name} main\n" }
    File.write(File.join(state, "etc/sources.list"), sources.join)
    FileUtils.touch(File.join(state, "status"))
    File.join(state, "apt.conf").tap do |path|
      File.write(path, <<~CONFIGURATION)
        Dir::State "#{state}"; Dir::State::status "#{state}/status"; Dir::Cache "#{state}"; Dir::Etc "#{state}/etc";
        APT::Architecture "#{architecture}"; APT::Architectures { "#{architecture}"; };
        APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none";
        Acquire::Check-Valid-Until "false";
      CONFIGURATION
    end
  end

  # @return [String] what it printed
  def attempt(environment, *command, **options)
    output, status = Open3.capture2e(environment, *command, **options)
    return output if status.success?

    raise Unavailable, "#{command.first(2).join(" ")} failed:\n#{output.lines.last(10).join}"
  rescue Errno::ENOENT
    raise Unavailable, "#{command.first} is not installed"
  end
end
