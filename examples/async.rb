# frozen_string_literal: true

# One file to every client, a fiber for each (gem "async"):  ruby -Ilib examples/async.rb FILE [PORT]

require "async"
require "io/stream" unless IO.method_defined?(:timeout) # Ruby 3.1: this gem adds the methods of IO that Async needs
require "socket"
require "hyperion/http/sendfile"

file = File.new(ARGV.fetch(0), "rb")
server = TCPServer.new("127.0.0.1", Integer(ARGV.fetch(1, 8080)))

Async do |task|
  loop do
    socket = server.accept
    task.async do
      socket.gets("\r\n\r\n", 8192)
      size = file.size
      head = "HTTP/1.1 200 OK\r\ncontent-length: #{size}\r\nconnection: close\r\n\r\n"
      Hyperion::Http::Sendfile.copy_to_socket(socket, file, 0, size, head: head, timeout: 30)
    rescue SystemCallError, IOError => e
      warn("#{e.class}: #{e.message}")
    ensure
      socket.close
    end
  end
end
