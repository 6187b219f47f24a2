# frozen_string_literal: true

require "socket"

module Bench
  # BBR, some systems' congestion control, lets timers send: what is measured then is the timers, several times the cost
  # of the call, and different in each run. Reno, which every Linux has, sends at once.
  module Pacing
    CONTROL = "reno"
    DEFAULT = "/proc/sys/net/ipv4/tcp_congestion_control"
    private_constant :DEFAULT

    module_function

    # Has the connections of a listener send without pacing. One that began with BBR goes on pacing, whatever it has
    # later.
    def off(listener)
      listener.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_CONGESTION, CONTROL) if File.exist?(DEFAULT)
      listener
    end

    # What the figures were measured with, and what sockets have by default.
    def fact
      File.exist?(DEFAULT) ? "#{CONTROL}, by default #{File.read(DEFAULT).strip}" : "the default"
    end
  end
end
