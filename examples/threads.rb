# frozen_string_literal: true

# One file to every client, a thread for each:  ruby -Ilib examples/threads.rb FILE [PORT]

require "socket"
require "hyperion/http/sendfile"

file = File.new(ARGV.fetch(0), "rb") # shared by all threads: its position is neither used nor moved
server = TCPServer.new("127.0.0.1", Integer(ARGV.fetch(1, 8080)))

loop do
  Thread.new(server.accept) do |socket|
    socket.gets("\r\n\r\n", 8192)
    size = file.size
    head = "HTTP/1.1 200 OK\r\ncontent-length: #{size}\r\nconnection: close\r\n\r\n"
    Hyperion::Http::Sendfile.copy_to_socket(socket, file, 0, size, head: head, timeout: 30)
  rescue SystemCallError, IOError => e # TruncatedError and TimeoutError are IOErrors
    warn("#{e.class}: #{e.message}")
  ensure
    socket.close
  end
end
