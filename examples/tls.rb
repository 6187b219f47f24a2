# frozen_string_literal: true

# One file to every client over TLS:
#
#   openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem
#   ruby -Ilib examples/tls.rb FILE cert.pem key.pem [PORT]

require "openssl"
require "socket"
require "hyperion/http/sendfile"

file = File.new(ARGV.fetch(0), "rb")
context = OpenSSL::SSL::SSLContext.new
context.cert = OpenSSL::X509::Certificate.new(File.read(ARGV.fetch(1)))
context.key = OpenSSL::PKey.read(File.read(ARGV.fetch(2)))
server = OpenSSL::SSL::SSLServer.new(TCPServer.new("127.0.0.1", Integer(ARGV.fetch(3, 8443))), context)
server.start_immediately = false # the handshake belongs to the client's thread

loop do
  Thread.new(server.accept) do |socket|
    socket.accept
    socket.gets("\r\n\r\n", 8192)
    size = file.size
    head = "HTTP/1.1 200 OK\r\ncontent-length: #{size}\r\nconnection: close\r\n\r\n"
    Hyperion::Http::Sendfile.copy_to_socket(socket, file, 0, size, head: head, timeout: 30)
  rescue SystemCallError, IOError, OpenSSL::SSL::SSLError => e
    warn("#{e.class}: #{e.message}")
  ensure
    socket.close
  end
end
