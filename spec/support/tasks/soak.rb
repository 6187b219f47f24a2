# frozen_string_literal: true

# Random transfers for SOAK_SECONDS (ten minutes), or the round of one seed: soak.rb [SEED].

require "spec_helper"
require "English"
require "tempfile"
require "timeout"

$stdout.sync = true
seed = ARGV.first && Integer(ARGV.first)
exit Soak.run(seconds: Integer(ENV.fetch("SOAK_SECONDS", "600")), **(seed ? { seed:, rounds: 1 } : {}))
