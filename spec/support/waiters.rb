# frozen_string_literal: true

# JRuby's fibers know of no scheduler. In M:N threads Ruby 3.4.11 itself crashes where they are switched.
if Fiber.respond_to?(:current_scheduler) && !RUBY_DESCRIPTION.include?("+MN")
  require "async"
  require "io/stream" unless IO.method_defined?(:timeout) # Ruby 3.1: Async waits by a shim of that gem
end

# The ways of waiting for a socket. Each runs the sender in a thread of its own, so that the example's
# thread stays free to direct the reader and to look at the sender from outside.
module Waiters
  FIBERS = (defined?(Async) ? %i[fiber_async fiber_minimal] : []).freeze
  ALL = (%i[thread blocking] + (FIBERS.empty? ? [] : %i[blocking_in_fiber]) + FIBERS).freeze
  WITHOUT_FIBERS = { fiber_async: :thread, fiber_minimal: :thread, blocking_in_fiber: :blocking }.freeze

  # Whether a sender that waits so leaves files to the kernel.
  def self.by_kernel?(waiter)
    !FIBERS.include?(waiter) || Needs.met?(:page_cache)
  end

  # A sender under way.
  class Sender
    attr_reader :thread, :scheduler

    def initialize(waiter, &block)
      @waiter = waiter
      @block = block
      @thread = Thread.new do
        Thread.current.report_on_exception = false
        send(:"under_#{waiter}")
      end
      Cleanup.later { stop }
    end

    # The block's value, or what it raised.
    def value(within: 25)
      raise Eventually::NeverHappened, "sender not done within #{within} s\n#{backtrace}" unless @thread.join(within)

      @thread.value
    end

    def error(**options)
      value(**options)
      nil
    rescue Eventually::NeverHappened
      raise
    rescue StandardError => e
      e
    end

    def done?
      !@thread.alive?
    end

    def asleep?
      @thread.status == "sleep"
    end

    def backtrace
      Array(@thread.backtrace).first(12).join("\n")
    end

    def stop
      @thread.kill
      @thread.join(5)
    rescue StandardError
      nil # the example has looked at it, or was not interested
    end

    private

    def under_thread
      @block.call
    end
    alias under_blocking under_thread

    def under_fiber_async
      Sync { @block.call }
    end

    def under_fiber_minimal
      @scheduler = MinimalScheduler.new
      Fiber.set_scheduler(@scheduler)
      value = error = nil
      Fiber.schedule do
        value = @block.call
      rescue Exception => e # rubocop:disable Lint/RescueException -- raised again below, in the thread
        error = e
      end
      Fiber.set_scheduler(nil) # runs the loop to its end
      error ? raise(error) : value
    end
    alias under_blocking_in_fiber under_fiber_minimal
  end

  def start_under(waiter, &block)
    waiter = WITHOUT_FIBERS.fetch(waiter, waiter) if FIBERS.empty?
    Sender.new(waiter, &block)
  end

  def run_under(waiter, &block)
    start_under(waiter, &block).value
  end

  # Sends under +waiter+ through the façade's method that goes with it.
  def start_copy(waiter, out, file, *region, **options, &progress)
    name = waiter.start_with?("blocking") ? :copy_to_socket_blocking : :copy_to_socket
    start_under(waiter) { S.public_send(name, out, file, *region, **options, &progress) }
  end

  def copy_under(...)
    start_copy(...).value
  end
end
