# frozen_string_literal: true

require "etc"
require "socket"
require_relative "loopback"

module Bench
  # A loopback TCP connection whose other end is read by a process of its own, so that the CPU time of this process is
  # the sender's alone. The reader reads only what it is told to expect: told before the transfer, it is a peer that is
  # always ready; told after it, it sleeps meanwhile, and no wake-up of another process is in the figure.
  class Drain
    READ_SIZE = 1 << 20
    # What wakes the reader: waking another core costs the sender more than sending a segment does.
    WAKE_AT = 128 << 10
    # Seconds it takes the reader to get from its order to its first read, at the most: a transfer that begins before is
    # cheaper, and which one does would depend on how long the call takes to get to the socket.
    SETTLE = 0.0005
    private_constant :READ_SIZE, :WAKE_AT, :SETTLE

    attr_reader :socket

    def self.open(**options)
      drain = new(**options)
      yield drain
    ensure
      drain&.close
    end

    # @param link [#connect] where the connection is made
    def initialize(nodelay: true, link: Loopback)
      @socket, peer = link.connect
      @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, nodelay)
      @control, control = UNIXSocket.pair
      @process = fork { serve(peer, control) }
      [peer, control].each(&:close)
    end

    # CPU seconds of the reader so far: what the kernel does at the arrival of an acknowledgement can be charged to it.
    def reader_cpu
      Process.clock_gettime((~@process << 3) | 2) # as clock_getcpuclockid(3) has it, on Linux
    end

    # From now on this process and the reader have a CPU each, where there are two, and taskset(1).
    def apart
      return if Etc.nprocessors < 2

      [Process.pid, @process].each_with_index do |process, cpu|
        system("taskset", "-apc", cpu.to_s, process.to_s, out: File::NULL, err: File::NULL)
      end
    end

    # Lets the reader read that many bytes, from now on.
    def expect(bytes)
      @control.write([bytes].pack("Q"))
    end

    # Returns once it has read them.
    def wait
      @control.read(1) or raise "bench: the reader is gone"
    end

    # A transfer of that many bytes with the reader always ready; yields the socket.
    def ready(bytes)
      expect(bytes)
      sleep(SETTLE)
      result = yield @socket
      wait
      result
    end

    # The same with the reader asleep until the block is done: what is sent must fit in the socket's buffers.
    def asleep(bytes)
      result = yield @socket
      expect(bytes)
      wait
      result
    end

    def close
      [@socket, @control].each(&:close)
      Process.kill(:KILL, @process)
      Process.wait(@process)
    end

    private

    def serve(peer, control)
      [@socket, @control].each(&:close)
      buffer = String.new(capacity: READ_SIZE)
      while (order = control.read(8))
        read(peer, order.unpack1("Q"), buffer)
        control.write(".")
      end
    ensure
      exit!
    end

    def read(peer, left, buffer)
      wake_at = nil
      while left.positive?
        enough = [left, WAKE_AT].min
        peer.setsockopt(Socket::SOL_SOCKET, Socket::SO_RCVLOWAT, wake_at = enough) unless wake_at == enough
        left -= peer.readpartial([left, READ_SIZE].min, buffer).bytesize
      end
    end
  end
end
