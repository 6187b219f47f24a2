# frozen_string_literal: true

require "socket"
require_relative "loopback"

module Bench
  # Kept-alive TCP connections, in the rhythm of requests and responses, with both ends in this process: each of the
  # connections, idle and with all it has sent acknowledged, gets one response; then each is read to the end of it, and
  # asks again. So a response is what it costs to send one: nothing waits in the socket to be joined by the next, nobody
  # has to be woken, and nothing else of this process runs meanwhile.
  class KeptAlive
    READ_SIZE = 1 << 20
    # Where struct tcp_info has tcpi_data_segs_out.
    DATA_SEGMENTS = "@156L"
    private_constant :READ_SIZE, :DATA_SEGMENTS

    # The ends that send.
    attr_reader :sockets

    # @param link [#connect] where the connections are made
    def initialize(connections, nodelay: true, link: Loopback)
      pairs = Array.new(connections) { link.connect }
      @sockets, @readers = pairs.transpose
      @sockets.each { |socket| socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, nodelay) }
      @readers.each { |reader| reader.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, true) }
      @buffer = String.new(capacity: READ_SIZE)
    end

    # Yields the sockets, to each of which the block has to send that many bytes; returns what it does.
    def respond(bytes)
      result = yield @sockets
      @readers.each { |reader| read(reader, bytes) }
      @sockets.each { |socket| socket.read(1) }
      result
    end

    # Segments with data that all of them have sent so far.
    def segments
      @sockets.sum { |socket| socket.getsockopt(:TCP, :INFO).data.unpack1(DATA_SEGMENTS) }
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
