# frozen_string_literal: true

require "socket"
require_relative "namespace"
require_relative "pacing"

module Bench
  # A link with the MTU of an Ethernet: a veth pair between two network namespaces made for it.
  class Veth
    MTU = 1500
    # RFC 2544 sets these apart for measurements.
    ADDRESSES = %w[198.18.0.1 198.18.0.2].freeze
    # Which column of /proc/net/dev that is.
    SENT_PACKETS = 9
    private_constant :ADDRESSES, :SENT_PACKETS

    # Yields a link, or nil and a sentence that says why none can be made here.
    def self.open
      link, why = make
      yield link, why
    ensure
      link&.close
    end

    def self.make
      [new, nil]
    rescue SystemCallError, Fiddle::DLError => e
      [nil, "no veth pair can be made here: #{e.message}"]
    end
    private_class_method :make

    def initialize
      @ends = []
      2.times { @ends << Namespace.new }
      @ends[0].ip("link", "add", "veth", "mtu", MTU, "type", "veth", "peer", "name", "veth", "mtu", MTU,
                  "netns", @ends[1].path)
      @ends.zip(ADDRESSES) do |namespace, address|
        namespace.ip("address", "add", "#{address}/24", "dev", "veth")
        namespace.ip("link", "set", "veth", "up")
      end
    rescue SystemCallError, Fiddle::DLError
      close
      raise
    end

    # A connection over the link: the end that sends, and the one that reads.
    def connect
      server = @ends[0].within { Pacing.off(TCPServer.new(ADDRESSES[0], 0)) }
      peer = @ends[1].within { TCPSocket.new(ADDRESSES[0], server.addr[1]) }
      [server.accept, peer]
    ensure
      server&.close
    end

    # Runs the block, and what it spawns, where the sender's end of the link is.
    def at_sender(&block)
      @ends[0].within(&block)
    end

    # From now on, for new connections, no packet is larger than the MTU: else TCP hands the link up to 64 KiB at once,
    # for the hardware to cut up, and a veth pair has none.
    def segment_in_software
      @ends[0].ip("link", "set", "veth", "gso_max_segs", 1)
    end

    # Those that the sender's end has sent so far.
    def packets
      line = at_sender { File.readlines("/proc/thread-self/net/dev") }.grep(/\A\s*veth:/).first
      line.split(":").last.split[SENT_PACKETS].to_i
    end

    def close
      @ends.each(&:close)
    end
  end
end
