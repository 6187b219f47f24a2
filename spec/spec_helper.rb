# frozen_string_literal: true

# The suite's rules. Support code is one file per helper in spec/support.

require "hyperion/http/sendfile"
require "rspec"

S = Hyperion::Http::Sendfile

require_relative "support/temporary_files"
Dir[File.join(__dir__, "support", "*.rb")].each { |file| require file }

RSpec.configure do |config|
  config.disable_monkey_patching!
  config.raise_errors_for_deprecations!
  config.order = :random
  Kernel.srand config.seed

  config.expect_with(:rspec) { |expectations| expectations.max_formatted_output_length = 400 }
  config.mock_with(:rspec) { |mocks| mocks.verify_partial_doubles = true }
  config.shared_context_metadata_behavior = :apply_to_host_groups

  config.include Eventually
  config.include Payload
  config.include Channels
  config.include Waiters
  config.include Backpressure
  config.include BothDirections
  config.include Fds
  config.include Kills
  config.include Cpu

  # Appended, so that examples' own `after` hooks still see open sockets.
  config.append_after { Cleanup.run }
  Watchdog.install(config, limit: Integer(ENV.fetch("WATCHDOG_SECONDS", "60")))
end
