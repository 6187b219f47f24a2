# frozen_string_literal: true

# Carries out random plans of failing system calls: faults.rb COUNT [SEED]. Fails when one of them broke something.

require "spec_helper"

count, seed = ARGV.map { |argument| Integer(argument) }
$stdout.sync = true
exit Faults::Campaign.new(count, seed || Random.rand(1 << 31)).run
