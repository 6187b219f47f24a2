# frozen_string_literal: true

# Thread#kill at a certain point.
module Kills
  # Runs the block in a thread that is killed when it has opened a file; returns that.
  def kill_after_open(&block)
    opened = nil
    allow(File).to receive(:new).and_wrap_original do |original, *arguments|
      opened = original.call(*arguments)
      Thread.current.then { |thread| Thread.new { thread.kill }.join }
      opened
    end
    Thread.new(&block).join
    opened
  end
end
