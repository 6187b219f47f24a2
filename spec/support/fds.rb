# frozen_string_literal: true

# Which file descriptors are open, and a matcher that counts them around a block.
module Fds
  # JRuby keeps the selectors that it has waited by, a pipe each, for the next wait: what it still opens in the
  # last round is lost.
  ROUNDS = RUBY_ENGINE == "jruby" ? 3 : 1

  # An IO awaiting its finaliser is no leak.
  def self.open
    GC.start
    table
  end

  def self.table
    Dir.children("/proc/self/fd").each_with_object({}) do |fd, table|
      table[fd.to_i] = File.readlink("/proc/self/fd/#{fd}")
    rescue Errno::ENOENT
      next # the descriptor of the listing itself
    end
  end

  def open_fds
    Fds.open
  end

  RSpec::Matchers.define :leak_fds do
    supports_block_expectations

    match do |block|
      Array.new(Fds::ROUNDS) do
        before = Fds.open
        block.call
        after = Fds.table
        after = Fds.open if after.size > before.size
        @new = after.reject { |fd, target| before[fd] == target }
        after.size > before.size
      end.all?
    end
    failure_message { "expected the block to leave descriptors open" }
    failure_message_when_negated { "expected no descriptor to be left open, but: #{@new}" }
  end
end
