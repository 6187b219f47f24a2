# frozen_string_literal: true

require "socket"
require_relative "pacing"

module Bench
  # The loopback device, where connections are made if not over another link.
  module Loopback
    module_function

    # The end that sends, and the one that reads.
    def connect
      server = Pacing.off(TCPServer.new("127.0.0.1", 0))
      reader = TCPSocket.new("127.0.0.1", server.addr[1])
      [server.accept, reader]
    ensure
      server&.close
    end
  end
end
