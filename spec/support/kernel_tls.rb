# frozen_string_literal: true

# TLS connections whose sender's side is encrypted by the kernel, where this kernel can; the peer's side is OpenSSL in
# userspace. Two more kinds of Channels.
module KernelTls
  KINDS = { ktls12: OpenSSL::SSL::TLS1_2_VERSION, ktls13: OpenSSL::SSL::TLS1_3_VERSION }.freeze
  SUITES = {
    ktls12: %w[ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305],
    ktls13: %w[TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256]
  }.freeze

  # A smaller send buffer can stall on loopback by the kernel's own doing.
  SNDBUF = 65_536
  # More than such a connection holds while no one reads.
  FILLS = 600_011

  STAT = "/proc/net/tls_stat"
  HEADER_BYTES = 5 # of a record: type, version, length

  # What crosses from one socket to another, in that direction recorded.
  class Relay
    # The socket to connect to in place of +to+.
    attr_reader :address

    def initialize(to)
      @listener = Cleanup.close(TCPServer.new("127.0.0.1", 0))
      @address = @listener.local_address
      @wire = +"".b
      @thread = Thread.new { run(to) }
      Cleanup.later { @thread.kill.join }
    end

    # Every byte from the server to the client, once the connection has ended.
    def wire
      raise Eventually::NeverHappened, "the relay is still at it" unless @thread.join(10)

      @wire
    end

    private

    def run(to)
      client = Cleanup.close(@listener.accept)
      server = Cleanup.close(to.connect)
      upstream = Thread.new { pass(client, server) }
      pass(server, client) { |chunk| @wire << chunk }
    ensure
      upstream&.kill&.join
      client&.close
    end

    def pass(from, to)
      loop do
        chunk = from.readpartial(65_536)
        yield chunk if block_given?
        to.write(chunk)
      end
    rescue IOError, SystemCallError
      nil # one of them has gone
    end
  end

  class << self
    # [the sender's SSLSocket, the peer's], the first with kernel TLS if +enable+.
    def connect(kind, suite: nil, small: false, enable: true, record: nil)
      out_wire, peer_wire = wires(small, record)
      server = Channels.send(:server_context, KINDS.fetch(kind))
      client = Channels.send(:client_context, KINDS.fetch(kind))
      choose(kind, client, suite) if suite
      S.enable_ktls(server) if enable
      handshake(OpenSSL::SSL::SSLSocket.new(out_wire, server), OpenSSL::SSL::SSLSocket.new(peer_wire, client))
    end

    def available?
      File.exist?(STAT)
    end

    # The counters of the kernel.
    def stat
      File.readlines(STAT).to_h(&:split).transform_values(&:to_i)
    end

    # The records in what was recorded: [type, bytes].
    def records(wire)
      position = 0
      records = []
      while position < wire.bytesize
        type, length = wire.byteslice(position, HEADER_BYTES).unpack("Cx2n")
        records << [type, length]
        position += HEADER_BYTES + length
      end
      raise "the wire ends within a record" unless position == wire.bytesize

      records
    end

    private

    def wires(small, record)
      listener = TCPServer.new("127.0.0.1", 0)
      target = listener.local_address
      target = record.call(target) if record
      peer = Socket.new(:INET, :STREAM)
      peer.setsockopt(:SOCKET, :RCVBUF, Channels::SMALL) if small
      peer.connect(target)
      out = listener.accept
      out.setsockopt(:SOCKET, :SNDBUF, SNDBUF)
      [out, peer]
    ensure
      listener&.close
    end

    def handshake(out, peer)
      [out, peer].each { |ssl| Cleanup.close(ssl).sync_close = true }
      accepting = Thread.new { out.accept }
      peer.connect
      accepting.value
      [out, peer]
    end

    def choose(kind, context, suite)
      return context.ciphers = suite if kind == :ktls12
      return context.ciphersuites = suite if context.respond_to?(:ciphersuites=)

      # The openssl gem of Ruby 3.1 has no word for it: by the SSL_CTX that its object holds.
      require "fiddle"
      pointer = Fiddle::Pointer.new(Fiddle.dlwrap(context))[4 * Fiddle::SIZEOF_VOIDP, Fiddle::SIZEOF_VOIDP].unpack1("J")
      library = Fiddle.dlopen(File.readlines("/proc/self/maps", chomp: true).grep(/libssl/).first[%r{/.*}])
      set = Fiddle::Function.new(library["SSL_CTX_set_ciphersuites"], [Fiddle::TYPE_VOIDP] * 2, Fiddle::TYPE_INT)
      raise "no cipher suite #{suite}" unless set.call(pointer, suite) == 1
    end
  end

  # What is run in a child whose system calls suffer.
  module Scenarios
    # The peer resets, and the pending error is consumed, while the sender is held up behind its first +call+.
    def reset_unheard(call, size:, waiter:, splice: false, memory: false)
      enable_splice(splice)
      channel = channel(:ktls13)
      reader = channel.read
      source = memory ? StringIO.new("\0" * size) : sparse(size)
      arm({ call => Faults::Rule.new(:dawdle_after, Faults::Scenarios::PATIENCE, 0, 1) }, channel, source)
      sender = start_copy(waiter, channel.out, source, 0, size)
      eventually("#{call} to be called") { @control.fired[call] == 1 }
      reader.reset
      eventually("the pending error") { channel.wire.getsockopt(:SOCKET, :ERROR).int != 0 }
      @control.hold
      said, error = outcome(sender)
      report(said: said, error: error)
    end

    # What the peer has got of a response that failed midway, before anything is closed.
    def received_after_failure(size:, head:, faults:, waiter:, splice: false)
      enable_splice(splice)
      channel = channel(:ktls13)
      reader = channel.read
      file = payload_file(size)
      arm(faults, channel, file)
      said, error = outcome(start_copy(waiter, channel.out, file, 0, size, head: head))
      reader.wait_for_bytes(head.bytesize)
      report(said: said, error: error, bytes: reader.bytes)
    end

    private

    def sparse(size)
      path = Payload.write("sparse-#{size}", "")
      File.truncate(path, size)
      Cleanup.close(File.open(path, "rb"))
    end
  end
  Faults::Scenarios.include(Scenarios)

  # As Channels opens any other kind.
  module Opening
    KINDS.each_key do |kind|
      define_method(kind) do |small|
        out, peer = KernelTls.connect(kind, small: small)
        Channels::Channel.new(kind, out, wire: out.to_io, peer: peer)
      end
    end
  end
  Channels.singleton_class.prepend(Opening)

  unless available?
    RSpec.configure do |config|
      config.define_derived_metadata(file_path: %r{/spec/ktls/}) do |metadata|
        metadata[:skip] = "this kernel has no TLS (its module tls is not loaded); rake spec:ktls brings one that has"
      end
    end
  end
end
