# frozen_string_literal: true

# Stands between a client and a server, and keeps what goes over the wire.
require "socket"

class Relay
  attr_reader :port

  def initialize(server_port)
    @listener = TCPServer.new("127.0.0.1", 0)
    @port = @listener.local_address.ip_port
    @recorded = {}.compare_by_identity
    @thread = Thread.new do
      loop { pass(@listener.accept, TCPSocket.new("127.0.0.1", server_port)) }
    end
    @thread.report_on_exception = false
  end

  # @return [String] what the server has sent
  def from_server
    @recorded.values.join
  end

  def close
    @thread.kill.join
    @listener.close
  end

  private

  def pass(client, server)
    record = @recorded[server] = "".b
    { client => server, server => client }.each do |from, to|
      Thread.new do
        loop do
          piece = from.readpartial(64 * 1024)
          record << piece if from == server
          to.write(piece)
        end
      rescue EOFError, SystemCallError
        to.close_write unless to.closed?
      end
    end
  end
end
