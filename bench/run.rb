# frozen_string_literal: true

# Runs every script of this folder, each in a process of its own, and says which of them missed what they claim.
#
#   ruby -Ilib bench/run.rb            half an hour; leaves its figures in bench/results
#   ruby -Ilib bench/run.rb --quick    a minute; wider limits, figures in tmp/bench

require "rbconfig"

SCRIPTS = Dir[File.join(__dir__, "*.rb")].map { |path| File.basename(path, ".rb") }.sort - %w[run support]
LIB = File.expand_path("../lib", __dir__)

missed = SCRIPTS.reject.with_index(1) do |script, number|
  warn "bench: #{script} (#{number} of #{SCRIPTS.size})"
  system(RbConfig.ruby, "-I#{LIB}", File.join(__dir__, "#{script}.rb"), *ARGV)
end
abort "bench: missed in #{missed.join(", ")}" if missed.any?
warn "bench: everything within its limits"
