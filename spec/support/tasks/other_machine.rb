# frozen_string_literal: true

# Compiles the extension for a processor unlike this one, with warnings being errors, and runs there what depends on
# it: for the Rakefile.

require_relative "machine_root"

class OtherMachine
  PACKAGES = %w[diffutils findutils iproute2 libssl-dev openssl ruby ruby-dev].freeze
  GEMS = "gem install --no-document rspec 'async:~> 2.24' 'io-stream:~> 0.6'"

  # The suite whose packages it has, and what it stands for.
  SUITES = {
    "i386" => "trixie", # long has 32 bits, off_t 64
    "s390x" => "bookworm", # big-endian
    "arm64" => "trixie"
  }.freeze

  SPECS = %w[primitives facade edges data_frames].freeze
  # By faults that are made to order, and timed too closely for an emulator.
  NATIVE_SPECS = %w[refusals splice truncated errors].freeze

  # Raises unless they pass. Where there is no such root it says so, which is all it does.
  def self.run(architecture)
    DebianRoot.or_skip(architecture) { new(architecture).run }
  end

  def initialize(architecture)
    @architecture = architecture
    @root = MachineRoot.new("machine-#{architecture}", architecture: architecture, suite: SUITES.fetch(architecture),
                                                       packages: PACKAGES, afterwards: [GEMS])
  end

  def run
    @root.make
    @root.copy_checkout
    raise "the specs fail on #{@architecture}" unless @root.run(<<~SHELL)
      cd /src
      ruby -v
      export WATCHDOG_SECONDS=600 # an emulator takes its time
      ruby -S rake compile >/dev/null
      rspec="ruby -Ilib -Ispec -S rspec --no-color --require spec_helper --tag ~patience"
      $rspec #{specs.map { |name| "spec/hyperion/http/sendfile/#{name}_spec.rb" }.join(" ")}
      $rspec --example "beyond 4 GiB" spec/hyperion/http/sendfile/delivers_every_byte_spec.rb
    SHELL
  end

  private

  def specs
    @root.emulated? ? SPECS : SPECS + NATIVE_SPECS
  end
end
