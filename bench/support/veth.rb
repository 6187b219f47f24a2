# frozen_string_literal: true

require "fiddle"
require "socket"

module Bench
  # A link with the MTU of an Ethernet: a veth pair between two network namespaces made for it. Nothing of it is seen
  # outside, and nothing stays: a namespace lives as long as a descriptor or a socket of it.
  class Veth
    MTU = 1500
    # RFC 2544 sets these apart for measurements.
    ADDRESSES = %w[198.18.0.1 198.18.0.2].freeze
    CLONE_NEWNET = 0x40000000
    OWN = "/proc/thread-self/ns/net"
    # Which column of /proc/net/dev that is.
    SENT_PACKETS = 9
    private_constant :ADDRESSES, :CLONE_NEWNET, :OWN, :SENT_PACKETS

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
      @here = File.open(OWN)
      @ends = []
      2.times { @ends << namespace }
      set_up
    rescue SystemCallError, Fiddle::DLError
      close
      raise
    end

    # A connection over the link: the end that sends, and the one that reads.
    def connect
      server = within(@ends[0]) { TCPServer.new(ADDRESSES[0], 0) }
      peer = within(@ends[1]) { TCPSocket.new(ADDRESSES[0], server.addr[1]) }
      [server.accept, peer]
    ensure
      server&.close
    end

    # Runs the block, and what it spawns, where the sender's end of the link is.
    def at_sender(&block)
      within(@ends[0], &block)
    end

    # From now on, for new connections, no packet is larger than the MTU: else TCP hands the link up to 64 KiB at once,
    # for the hardware to cut up, and a veth pair has none.
    def segment_in_software
      at_sender { ip("link", "set", "veth", "gso_max_segs", 1) }
    end

    # Those that the sender's end has sent so far.
    def packets
      line = at_sender { File.readlines("/proc/thread-self/net/dev") }.grep(/\A\s*veth:/).first
      line.split(":").last.split[SENT_PACKETS].to_i
    end

    def close
      [@here, *@ends].compact.each(&:close)
    end

    private

    def namespace
      call("unshare", CLONE_NEWNET)
      File.new(OWN).tap { enter(@here) }
    end

    # A thread is in one namespace, a socket in that of the thread that made it.
    def within(namespace)
      enter(namespace)
      yield
    ensure
      enter(@here)
    end

    def enter(namespace)
      call("setns", namespace.fileno, CLONE_NEWNET)
    end

    def call(name, *arguments)
      function = Fiddle::Function.new(Fiddle::Handle::DEFAULT[name], [Fiddle::TYPE_INT] * arguments.size,
                                      Fiddle::TYPE_INT)
      function.call(*arguments).zero? or raise SystemCallError.new(name, Fiddle.last_error)
    end

    def set_up
      within(@ends[0]) do
        ip("link", "add", "veth", "mtu", MTU, "type", "veth", "peer", "name", "veth", "mtu", MTU,
           "netns", "/proc/#{Process.pid}/fd/#{@ends[1].fileno}")
      end
      @ends.zip(ADDRESSES) do |namespace, address|
        within(namespace) do
          ip("address", "add", "#{address}/24", "dev", "veth")
          ip("link", "set", "veth", "up")
        end
      end
    end

    def ip(*arguments)
      system("ip", *arguments.map(&:to_s), exception: true)
    rescue RuntimeError => e
      raise Errno::ENODEV, e.message
    end
  end
end
