# frozen_string_literal: true

require "socket"
require_relative "pacing"

module Bench
  # Kept-alive connections over loopback TCP, in the rhythm of requests and responses, with both ends in this process:
  # each of the connections, idle and with all it has sent acknowledged, gets one response; then each is read to the
  # end of it, and asks again. So a response is what it costs to send one: nothing waits in the socket to be joined by
  # the next, nobody has to be woken, and nothing else of this process runs meanwhile.
  class KeptAlive
    READ_SIZE = 1 << 20
    # A response that does not fit the peer's window would wait for it.
    WINDOW = 1 << 20
    private_constant :READ_SIZE, :WINDOW

    # The ends that send.
    attr_reader :sockets

    def self.open(...)
      connections = new(...)
      yield connections
    ensure
      connections&.close
    end

    # @param link [#connect] where the connections are made, if not on the loopback device
    def initialize(connections, nodelay: true, link: self)
      pairs = Array.new(connections) { link.connect }
      @sockets, @readers = pairs.transpose
      @sockets.each { |socket| Pacing.off(socket).setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, nodelay) }
      @readers.each { |reader| reader.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, true) }
      @buffer = String.new(capacity: READ_SIZE)
    end

    # The end that sends, and the one that reads.
    def connect
      server = TCPServer.new("127.0.0.1", 0)
      reader = Socket.new(:INET, :STREAM)
      reader.setsockopt(Socket::SOL_SOCKET, Socket::SO_RCVBUF, WINDOW)
      reader.connect(server.local_address)
      [server.accept, reader]
    ensure
      server&.close
    end

    # Yields the sockets, to each of which the block has to send that many bytes; returns what it does.
    def respond(bytes)
      result = yield @sockets
      @readers.each { |reader| read(reader, bytes) }
      @sockets.each { |socket| socket.read(1) }
      result
    end

    def close
      [*@sockets, *@readers].each(&:close)
    end

    private

    def read(reader, left)
      left -= reader.readpartial(left, @buffer).bytesize while left.positive?
      reader.write("?")
    end
  end
end
