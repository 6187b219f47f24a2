# frozen_string_literal: true

require "socket"

module Bench
  # A client in a process of its own that asks again and again on one connection, and takes the time of each answer.
  module Client
    READ_SIZE = 1 << 20
    private_constant :READ_SIZE

    module_function

    # Answers each request by the block, which gets the socket and has to send as many bytes as a response has.
    # Returns the seconds from each request to the last byte of its response.
    def measure(requests:, response:, nodelay:, &answer)
      server = TCPServer.new("127.0.0.1", 0)
      report, to_report = IO.pipe(binmode: true)
      process = fork { ask(server.addr[1], requests, response, to_report) }
      to_report.close
      serve(server.accept, requests, nodelay, &answer)
      Marshal.load(report) # rubocop:disable Security/MarshalLoad -- from the process forked above
    ensure
      [server, report].compact.each(&:close)
      Process.wait(process) if process
    end

    def serve(socket, requests, nodelay)
      socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, nodelay)
      requests.times do
        socket.read(1) or raise "bench: the client is gone"
        yield socket
      end
      socket.read(1)
    ensure
      socket.close
    end

    def ask(port, requests, response, report)
      buffer = String.new(capacity: READ_SIZE)
      socket = TCPSocket.new("127.0.0.1", port)
      socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, true)
      Marshal.dump(Array.new(requests) { Measure.time { request(socket, response, buffer) }.wall }, report)
    ensure
      exit!
    end

    def request(socket, left, buffer)
      socket.write("?")
      left -= socket.readpartial([left, READ_SIZE].min, buffer).bytesize while left.positive?
    end
  end
end
