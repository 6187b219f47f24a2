# frozen_string_literal: true

require "socket"
require_relative "compile"
require_relative "namespace"
require_relative "pacing"

module Bench
  # The sender's side of a network card, and nothing else: a device that takes packets as a card does, without a copy
  # and up to 64 KiB in one, and drops them. Its connections begin as established, with a window that is never full, and
  # hear nothing: what they have sent stays theirs until they are closed. Linux, root; Bench.connect_nowhere is in
  # no_wire.c.
  class NoWire
    DEVICE = "nowire"
    HERE = "198.18.0.1"
    THERE = "198.18.0.2"
    NETWORK = "198.18.0.0/24"
    # Packets: more than any burst has.
    WINDOW = 1_000_000
    # What a kernel may have of devices that take everything.
    TYPES = %w[ifb dummy].freeze
    private_constant :DEVICE, :HERE, :THERE, :NETWORK, :WINDOW, :TYPES

    # Yields one, or nil and a sentence that says why there can't be one here.
    def self.open
      device, why = make
      yield device, why
    ensure
      device&.close
    end

    def self.make
      [new, nil]
    rescue SystemCallError, Fiddle::DLError => e
      [nil, "no device that drops can be made here: #{e.message}"]
    end
    private_class_method :make

    def initialize
      Compile.load!("no_wire")
      @namespace = Namespace.new
      add_device
      @namespace.ip("address", "add", "#{HERE}/24", "dev", DEVICE)
      @namespace.ip("link", "set", DEVICE, "up")
      @namespace.ip("route", "change", NETWORK, "dev", DEVICE, "initcwnd", WINDOW)
      connection.close
    rescue SystemCallError
      close
      raise
    end

    def connection
      @namespace.within { Socket.for_fd(Bench.connect_nowhere(HERE, THERE, Pacing::CONTROL)) }
    end

    # Bytes that came to the device, headers among them.
    def arrived
      @namespace.within { File.readlines("/proc/thread-self/net/dev") }.grep(/#{DEVICE}:/).first
                .split.values_at(1, 9).sum(&:to_i)
    end

    def close
      @namespace&.close
    end

    private

    def add_device
      types = TYPES.dup
      begin
        @namespace.ip("link", "add", DEVICE, "mtu", 1500, "type", types.shift)
      rescue Errno::ENODEV
        retry if types.any?
        raise
      end
    end
  end
end
