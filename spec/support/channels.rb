# frozen_string_literal: true

require "socket"
require "stringio"
require "openssl"
require "io/nonblock"
require "io/wait"
require_relative "certificate"
require_relative "descriptors"

# Connected pairs, one per kind of destination. All of them are closed after the example.
module Channels
  KERNEL = %i[tcp unix pipe].freeze # fds that the kernel can send to by itself
  TLS = %i[tls12 tls13].freeze
  MEMORY = %i[stringio writer].freeze
  ALL = (KERNEL + TLS + MEMORY + %i[fd wrapper]).freeze

  SMALL = 4_096

  # One connection. +out+ is what the library is given, +wire+ the IO whose fd carries it (nil in memory),
  # +peer+ what the reader reads from.
  class Channel
    attr_reader :kind, :out, :wire, :peer

    def initialize(kind, out, wire: nil, peer: nil)
      @kind = kind
      @out = out
      @wire = wire
      @peer = peer
      [out, peer, wire, peer&.to_io].each { |io| Cleanup.close(io) if io.respond_to?(:closed?) }
    end

    # A Reader, started.
    def read(mode = :greedy, **options)
      peer ? Reader.start(peer, mode, **options) : Reader::Memory.new(out)
    end

    # Ends the stream, so that the reader comes to the end of file.
    def finish
      closable = out.respond_to?(:close) ? out : wire
      closable.close unless closable.nil? || closable.closed?
    end

    # What the sender meant by what the reader got.
    def decode(received)
      kind == :wrapper ? Wrapper.garble(received) : received
    end

    def writable?
      Descriptors.writable?(wire)
    end

    # Bytes that the kernel holds for the reader.
    def queued
      Descriptors.ioctl(wire, kind == :pipe ? Descriptors::FIONREAD : Descriptors::TIOCOUTQ)
    end
  end

  # Anything with `write`, and nothing else.
  class Writer
    attr_reader :string

    def initialize
      @string = +"".b
    end

    def write(*strings)
      strings.sum do |string|
        @string << string.b
        string.bytesize
      end
    end
  end

  # Shaped like the TLS sockets of some servers: it leads to the socket underneath and yet only its own `write`
  # says what goes on the wire. Plain bytes on the raw fd would arrive garbled.
  class Wrapper
    # Flips the high bit of every byte; doing it twice undoes it.
    def self.garble(string)
      string.b.tr("\x00-\xff".b, "\x80-\xff\x00-\x7f".b)
    end

    def initialize(io)
      @io = io
    end

    def to_io
      @io
    end

    def fileno
      @io.fileno
    end

    def write(*strings)
      strings.sum { |string| @io.write(Wrapper.garble(string)) }
    end

    def closed?
      @io.closed?
    end

    def close
      @io.close
    end
  end

  class << self
    # +small+: buffers of about 4 KiB on both sides. +nonblock+: O_NONBLOCK of the sender's fd.
    def open(kind, small: false, nodelay: false, nonblock: true)
      channel = send(kind, small)
      channel.wire&.setsockopt(:TCP, :NODELAY, true) if nodelay
      channel.wire.nonblock = nonblock if channel.wire
      channel
    end

    private

    def tcp(small)
      out, peer = tcp_pair(small)
      Channel.new(:tcp, out, wire: out, peer: peer)
    end

    # The bare descriptor of a TCP socket.
    def fd(small)
      wire, peer = tcp_pair(small)
      Channel.new(:fd, wire.fileno, wire: wire, peer: peer)
    end

    def wrapper(small)
      out, peer = tcp_pair(small)
      Channel.new(:wrapper, Wrapper.new(out), wire: out, peer: peer)
    end

    def unix(small)
      out, peer = UNIXSocket.pair
      Descriptors.shrink_send_buffer(out, SMALL) if small
      Channel.new(:unix, out, wire: out, peer: peer)
    end

    def pipe(small)
      peer, out = IO.pipe
      [peer, out].each(&:binmode)
      Descriptors.shrink_pipe(out, SMALL) if small
      Channel.new(:pipe, out, wire: out, peer: peer)
    end

    def tls12(small)
      tls(:tls12, OpenSSL::SSL::TLS1_2_VERSION, small)
    end

    def tls13(small)
      tls(:tls13, OpenSSL::SSL::TLS1_3_VERSION, small)
    end

    def stringio(_small)
      Channel.new(:stringio, StringIO.new(+"".b))
    end

    def writer(_small)
      Channel.new(:writer, Writer.new)
    end

    # The accepted side sends. A receive buffer counts only if it is set before the connection is made.
    def tcp_pair(small)
      listener = TCPServer.new("127.0.0.1", 0)
      peer = Socket.new(:INET, :STREAM)
      peer.setsockopt(:SOCKET, :RCVBUF, SMALL) if small
      peer.connect(listener.local_address)
      out = listener.accept
      out.setsockopt(:SOCKET, :SNDBUF, SMALL) if small
      [out, peer]
    ensure
      listener&.close
    end

    def tls(kind, version, small)
      out_wire, peer_wire = tcp_pair(small)
      peer = OpenSSL::SSL::SSLSocket.new(peer_wire, client_context(version))
      out = OpenSSL::SSL::SSLSocket.new(out_wire, server_context(version))
      [peer, out].each { |ssl| ssl.sync_close = true }
      accepting = Thread.new { out.accept }
      peer.connect
      accepting.value
      Channel.new(kind, out, wire: out_wire, peer: peer)
    end

    def server_context(version)
      context(version).tap do |context|
        context.cert = Certificate.x509 # by two steps, since JRuby has no add_certificate
        context.key = Certificate.key
      end
    end

    def client_context(version)
      context(version).tap { |context| context.verify_mode = OpenSSL::SSL::VERIFY_NONE }
    end

    def context(version)
      OpenSSL::SSL::SSLContext.new.tap { |context| context.min_version = context.max_version = version }
    end
  end

  def channel(kind, **options)
    Channels.open(kind, **options)
  end
end
