# frozen_string_literal: true

# `openssl s_client` as the peer: it changes keys (TLS 1.3) and renegotiates (TLS 1.2) when it is told to, which
# Ruby's OpenSSL can't.
class SClient
  ALLOW_CLIENT_RENEGOTIATION = 1 << 8 # SSL_OP_ALLOW_CLIENT_RENEGOTIATION, which Ruby has no name for
  COMMANDS = { renegotiate: "R", update_key: "k", update_both_keys: "K" }.freeze

  def self.available?
    @available ||= system("openssl", "version", out: File::NULL, err: File::NULL)
  end

  # [the server's SSLSocket, the client]
  def self.connect(version, *options)
    listener = TCPServer.new("127.0.0.1", 0)
    client = new(listener.local_address.ip_port, options)
    out = OpenSSL::SSL::SSLSocket.new(listener.accept, context(version))
    Cleanup.close(out).sync_close = true
    out.accept
    [out, client]
  ensure
    listener&.close
  end

  def self.context(version)
    Channels.send(:server_context, version).tap { |context| context.options |= ALLOW_CLIENT_RENEGOTIATION }
  end
  private_class_method :context

  def initialize(port, options)
    command = ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", "127.0.0.1:#{port}", *options]
    @pipe = IO.popen(command, "r+b", err: File::NULL)
    @output = +"".b
    @thread = Thread.new { drain }
    Cleanup.later { stop }
  end

  def tell(command)
    @pipe.syswrite("#{COMMANDS.fetch(command)}\n")
  end

  def pause
    Process.kill(:STOP, @pipe.pid)
  end

  def go_on
    Process.kill(:CONT, @pipe.pid)
  end

  # What it received, once the connection has ended.
  def result
    raise Eventually::NeverHappened, "s_client is still at it" unless @thread.join(10)

    @output
  end

  private

  def drain
    loop { @output << @pipe.readpartial(65_536) }
  rescue EOFError
    nil
  end

  def stop
    Process.kill(:KILL, @pipe.pid)
    @thread.join
    @pipe.close
  end
end
