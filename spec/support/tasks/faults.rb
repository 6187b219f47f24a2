# frozen_string_literal: true

# Carries out random plans of failing system calls: faults.rb COUNT [SEED [ktls or frames]]. Fails when one of them
# broke something.

require "spec_helper"

count, seed = ARGV.first(2).map { |argument| Integer(argument) }
$stdout.sync = true
exit Faults::Campaign.new(count, seed || Random.rand(1 << 31), (ARGV[2] || :usual).to_sym).run
