# frozen_string_literal: true

require "openssl"
require "socket"
require_relative "../../spec/support/certificate"
require_relative "pacing"

module Bench
  # A TLS connection over loopback TCP whose client is a process of its own. After the handshake it takes what comes off
  # the wire as it is: what it would cost to decrypt is no sender's business.
  class TlsDrain
    READ_SIZE = 1 << 20
    TIOCOUTQ = 0x5411 # bytes not yet acknowledged
    private_constant :READ_SIZE, :TIOCOUTQ

    VERSIONS = { "TLS 1.2" => OpenSSL::SSL::TLS1_2_VERSION, "TLS 1.3" => OpenSSL::SSL::TLS1_3_VERSION }.freeze

    # The server's side.
    attr_reader :ssl

    def self.open(version)
      drain = new(VERSIONS.fetch(version))
      yield drain
    ensure
      drain&.close
    end

    # @yieldparam context [OpenSSL::SSL::SSLContext] the server's
    def initialize(version, &configure)
      listener = TCPServer.new("127.0.0.1", 0)
      @process = fork { receive(listener.local_address) }
      socket = Pacing.off(listener.accept)
      socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, true)
      @ssl = OpenSSL::SSL::SSLSocket.new(socket, context(version, &configure))
      @ssl.sync_close = @ssl.sync = true
      @ssl.accept
    ensure
      listener&.close
    end

    # Returns what the block does, once the client's kernel has everything.
    def settled
      result = yield @ssl
      sleep(0.0005) until queued.zero?
      result
    end

    def close
      Process.kill(:KILL, @process)
      Process.wait(@process)
      @ssl.to_io.close
    end

    private

    def queued
      count = [0].pack("i")
      @ssl.to_io.ioctl(TIOCOUTQ, count)
      count.unpack1("i")
    end

    def context(version)
      OpenSSL::SSL::SSLContext.new.tap do |context|
        context.min_version = context.max_version = version
        context.add_certificate(Certificate.x509, Certificate.key)
        yield context if block_given?
      end
    end

    def receive(address)
      socket = address.connect
      OpenSSL::SSL::SSLSocket.new(socket).connect
      buffer = String.new(capacity: READ_SIZE)
      loop { socket.readpartial(READ_SIZE, buffer) }
    ensure
      exit!
    end
  end
end
