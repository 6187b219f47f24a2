# frozen_string_literal: true

# A small HTTPS file server, a fiber for each connection (gem "async"): GET and HEAD, keep-alive. The kernel encrypts if
# it can, otherwise OpenSSL does; the call that sends is the same. It listens on 127.0.0.1 only.
#
#   ruby -Ilib examples/https.rb [DIR] [PORT]           VERBOSE=1 tells of each connection who encrypts
#   CERT=cert.pem KEY=key.pem ruby -Ilib examples/https.rb
#
# Without a certificate, it makes a self-signed one: curl -k https://localhost:8443/

require "async"
require "io/stream" unless IO.method_defined?(:timeout) # Ruby 3.1: this gem adds the methods of IO that Async needs
require "openssl"
require_relative "server"

# Serves the regular files below a directory over TLS.
class HttpsServer
  S = Hyperion::Http::Sendfile
  HANDSHAKE_TIMEOUT = 10 # seconds
  IDLE_TIMEOUT = 15      # seconds for a complete request head to arrive
  SEND_TIMEOUT = 30      # seconds without a byte before a reader counts as stalled
  MAX_HEAD = 16_384      # bytes
  GONE = [SystemCallError, IOError, OpenSSL::SSL::SSLError, Async::TimeoutError].freeze

  attr_reader :port

  def initialize(root, port: 8443, certificate: nil, key: nil, verbose: false)
    @root = File.realpath(root)
    @verbose = verbose
    @context = OpenSSL::SSL::SSLContext.new
    @enabled = S.enable_ktls(@context)
    key ||= OpenSSL::PKey::EC.generate("prime256v1")
    @context.add_certificate(certificate || self_signed(key), key)
    @listener = TCPServer.new("127.0.0.1", port)
    @port = @listener.local_address.ip_port
  end

  # Serves until it is interrupted.
  def run
    Sync do |task|
      loop do
        socket = @listener.accept
        task.async { serve(socket) }
      end
    end
  ensure
    @listener.close
  end

  # Prints the facts that are known before the first handshake, at which OpenSSL asks the kernel.
  def ktls
    return "no: this OpenSSL, or this build of the gem, can't" unless @enabled
    return "no: the kernel's module tls is not loaded" unless File.exist?("/proc/net/tls_stat")

    "yes, with the cipher suites that the kernel has"
  end

  private

  def serve(socket)
    socket.setsockopt(:TCP, :NODELAY, true)
    ssl = OpenSSL::SSL::SSLSocket.new(socket, @context)
    ssl.sync_close = true
    within(HANDSHAKE_TIMEOUT) { ssl.accept }
    puts("#{ssl.ssl_version}, #{ssl.cipher.first}: #{S.fast_path_kind(ssl)}") if @verbose
    nil while serve_request(ssl)
  rescue *GONE => e # the client is gone or stalls, or a file has shrunk: the response cannot be completed
    warn("#{e.class}: #{e.message}") if @verbose
  ensure
    close(ssl || socket)
  end

  # Also sends close_notify, for which a stalled client may have no room.
  def close(connection)
    within(1) { connection.close }
  rescue *GONE
    connection.to_io.close
  end

  # Returns true if another request may follow on this connection.
  def serve_request(ssl)
    request = read_request(ssl) or return false
    raise FileServer::Refused.new(405, "allow: GET, HEAD") unless %w[GET HEAD].include?(request.method)

    send_file(ssl, request)
    request.persistent?
  rescue FileServer::Refused => e
    text = "#{e.message}\n"
    persistent = request&.persistent?
    ssl.write(header(e.status, text.bytesize, persistent, e.fields), request&.method == "HEAD" ? "" : text)
    persistent
  end

  def read_request(ssl)
    head = within(IDLE_TIMEOUT) { ssl.gets("\r\n\r\n", MAX_HEAD) } or return
    raise FileServer::Refused, 431 unless head.end_with?("\r\n\r\n")

    FileServer::Request.new(head.delete_suffix("\r\n\r\n"))
  end

  def send_file(ssl, request)
    file = open_file(request.path)
    length = request.method == "HEAD" ? 0 : file.size
    head = header(200, file.size, request.persistent?)
    S.copy_to_socket(ssl, file, 0, length, head: head, timeout: SEND_TIMEOUT)
  ensure
    file&.close
  end

  def header(status, size, persistent, fields = "")
    "HTTP/1.1 #{status} #{FileServer::Connection::REASONS.fetch(status)}\r\ncontent-length: #{size}\r\n#{fields}" \
      "connection: #{persistent ? "keep-alive" : "close"}\r\n\r\n"
  end

  # Whether the path is inside the root after all symbolic links are resolved.
  def open_file(path)
    real = File.realpath(@root + path.force_encoding(@root.encoding))
    raise FileServer::Refused, 404 unless real.start_with?(File.join(@root, "")) && File.file?(real)

    File.new(real, File::RDONLY | File::NONBLOCK | File::NOFOLLOW, binmode: true)
  rescue Errno::ENOENT, Errno::ENOTDIR, Errno::EACCES, Errno::ELOOP, Errno::ENAMETOOLONG
    raise FileServer::Refused, 404
  end

  def within(seconds, &block)
    Async::Task.current.with_timeout(seconds, &block)
  end

  def self_signed(key)
    OpenSSL::X509::Certificate.new.tap do |cert|
      cert.version = 2
      cert.serial = OpenSSL::BN.rand(64)
      cert.subject = cert.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      cert.public_key = key
      cert.not_before = Time.now - 60
      cert.not_after = Time.now + (30 * 86_400)
      names = OpenSSL::X509::ExtensionFactory.new
      cert.add_extension(names.create_extension("subjectAltName", "DNS:localhost,IP:127.0.0.1"))
      cert.sign(key, "SHA256")
    end
  end
end

if $PROGRAM_NAME == __FILE__
  certificate, key = ENV.values_at("CERT", "KEY").map { |path| path && File.read(path) }
  server = HttpsServer.new(ARGV.fetch(0, "."), port: Integer(ARGV.fetch(1, 8443)), verbose: ENV.key?("VERBOSE"),
                                               certificate: certificate && OpenSSL::X509::Certificate.new(certificate),
                                               key: key && OpenSSL::PKey.read(key))
  trap("TERM") { raise Interrupt }
  $stdout.sync = true
  puts("https://127.0.0.1:#{server.port}/", "kernel TLS: #{server.ktls}")
  begin
    server.run
  rescue Interrupt
    nil # Ctrl-C ends the server
  end
end
