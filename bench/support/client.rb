# frozen_string_literal: true

require "socket"
require_relative "c_loop"
require_relative "compile"
require_relative "loopback"

Bench::Compile.load!("client")

module Bench
  # Kept-alive connections to a client in a process of its own, on another CPU, that asks on each of them as soon as it
  # has the response, and takes the time to its last byte.
  class Client
    ASKED = "?".ord
    private_constant :ASKED

    # What the client saw: the seconds of each response, and those of all together.
    Seen = Struct.new(:times, :wall)

    # @param bytes [Integer] of a response
    # @param link [#connect] where the connections are made
    def initialize(bytes, connections: 1, nodelay: true, link: Loopback)
      @sockets, readers = Array.new(connections) { link.connect }.transpose
      @sockets.each { |socket| socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, nodelay) }
      readers.each { |reader| reader.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, true) }
      @control, control = UNIXSocket.pair
      @process = fork { run(readers, control, bytes) }
      [*readers, control].each(&:close)
    end

    # Answers by the block, which gets the socket of whoever has asked, one after the other: so many responses, or as
    # many as there are in so many seconds.
    def measure(responses, seconds, &answer)
      @control.write([responses, seconds].pack("QD"))
      wall = Measure.time { serve(&answer) }.wall
      Seen.new(Marshal.load(@control), wall) # rubocop:disable Security/MarshalLoad -- from the process forked above
    end

    def close
      [*@sockets, @control].each(&:close)
      Process.kill(:KILL, @process) # which does not see that they are closed where a later client has inherited them
      Process.wait(@process)
    end

    private

    def serve
      open = @sockets.dup
      until open.empty?
        open.select! do |socket|
          asked = socket.getbyte == ASKED
          yield socket if asked
          asked
        end
      end
    end

    def run(readers, control, bytes)
      [*@sockets, @control].each(&:close)
      Bench.pin(1)
      while (order = control.read(16))
        Marshal.dump(Bench.ask(readers, bytes, *order.unpack("QD")), control)
      end
    ensure
      exit!
    end
  end
end
