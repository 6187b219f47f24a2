# frozen_string_literal: true

# A small HTTP/1.1 file server on plain sockets, one thread per connection: GET and HEAD, ranges, keep-alive,
# pipelining. Every response, head and body, is one call of copy_to_socket. It listens on 127.0.0.1 only.
#
#   ruby -Ilib examples/server.rb DIR [PORT]
#
# Read FileServer (accept, stop), then Connection (request by request), then Request (what HTTP allows).

require "socket"
require "stringio"
require "time"
require "hyperion/http/sendfile"

# Serves the regular files below a directory.
class FileServer
  STOP_GRACE = 5 # seconds for a response that is under way when the server is told to stop

  attr_reader :port

  def initialize(root, port: 8080)
    @root = File.realpath(root)
    @listener = TCPServer.new("127.0.0.1", port)
    @port = @listener.local_address.ip_port
    @stopping, @stop = IO.pipe # readable once #stop has closed its other end: wakes threads that wait for input
    @connections = ThreadGroup.new
  end

  # Serves until #stop is called, by another thread or by a signal handler.
  def run
    accept while IO.select([@listener, @stopping]).first == [@listener]
  ensure
    @listener.close
    deadline = Connection.now + STOP_GRACE
    @connections.list.each { |thread| thread.join([deadline - Connection.now, 0].max) || thread.kill.join }
  end

  def stop
    @stop.close
  end

  private

  def accept
    socket = @listener.accept_nonblock(exception: false)
    return if socket == :wait_readable

    @connections.add(Thread.new { Connection.new(socket, @root, @stopping).serve })
  rescue Errno::ECONNABORTED
    # The client left while it was queued.
  rescue Errno::EMFILE, Errno::ENFILE
    sleep(0.1) # the client stays queued until a connection ends and frees its descriptor
  end

  # The response is an error status, with a header field that belongs to it.
  class Refused < StandardError
    attr_reader :status, :fields

    def initialize(status, field = nil)
      super("#{status} #{Connection::REASONS.fetch(status)}")
      @status = status
      @fields = field ? "#{field}\r\n" : ""
    end
  end

  # One client: its requests are answered in the order in which they came.
  class Connection
    IDLE_TIMEOUT = 15 # seconds for a complete request head to arrive
    SEND_TIMEOUT = 30 # seconds without progress before a reader counts as stalled
    LINGER = 2        # seconds for the client to take the last response
    MAX_HEAD = 16_384 # bytes
    HEAD = /\A(?:\r\n)*+(.+?)\r?\n\r?\n/mn
    REASONS = { 200 => "OK", 206 => "Partial Content", 400 => "Bad Request", 404 => "Not Found",
                405 => "Method Not Allowed", 416 => "Range Not Satisfiable",
                431 => "Request Header Fields Too Large", 505 => "HTTP Version Not Supported" }.freeze
    TYPES = { ".html" => "text/html", ".txt" => "text/plain", ".css" => "text/css", ".png" => "image/png" }.freeze

    def self.now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    # The time of day, made into text once a second.
    def self.date
      second = Process.clock_gettime(Process::CLOCK_REALTIME, :second)
      @date = [second, Time.at(second).httpdate] unless @date&.first == second
      @date.last
    end

    def initialize(socket, root, stopping)
      @socket = socket
      @root = root
      @stopping = stopping
      @input = String.new(encoding: Encoding::BINARY) # received, not yet parsed: may hold pipelined requests
    end

    def serve
      @socket.setsockopt(:TCP, :NODELAY, true) # a pipelined response must not wait until the one before is acknowledged
      nil while serve_request
    rescue SystemCallError
      # The client is gone.
    rescue IOError => e # also TruncatedError and TimeoutError: the response cannot be completed
      warn("#{e.class}: #{e.message}")
    ensure
      @socket.close
    end

    private

    # Returns true if another request may follow on this connection.
    def serve_request
      head = read_head or return false
      @head_only = head.start_with?("HEAD ")
      request = Request.new(head)
      raise Refused.new(405, "allow: GET, HEAD") unless %w[GET HEAD].include?(request.method)

      file = open_file(request.path)
      serve_file(file, request)
    rescue Refused => e
      text = "#{e.message}\n"
      respond(e.status, StringIO.new(text), 0...text.bytesize, "text/plain", e.fields, request&.persistent?)
    ensure
      file&.close
    end

    # The headers describe the descriptor that the bytes come from.
    def serve_file(file, request)
      size = file.size
      range = request.range(size)
      type = TYPES.fetch(File.extname(file), "application/octet-stream")
      fields = "accept-ranges: bytes\r\n"
      fields += "content-range: bytes #{range.first}-#{range.last}/#{size}\r\n" if range
      respond(range ? 206 : 200, file, range || (0...size), type, fields, request.persistent?)
    end

    # A client that reads too slowly, or a file that shrinks, makes copy_to_socket raise: the rest of this response is
    # lost, so the connection must close.
    def respond(status, source, region, type, fields, persistent)
      head = "HTTP/1.1 #{status} #{REASONS.fetch(status)}\r\ndate: #{self.class.date}\r\n" \
             "content-type: #{type}\r\ncontent-length: #{region.size}\r\n#{fields}" \
             "connection: #{persistent ? "keep-alive" : "close"}\r\n\r\n"
      length = @head_only ? 0 : region.size
      Hyperion::Http::Sendfile.copy_to_socket(@socket, source, region.first, length, head: head, timeout: SEND_TIMEOUT)
      linger unless persistent
      persistent
    end

    # Resolves symbolic links, checks that the file is inside the root, and opens the resolved path. NONBLOCK: opening a
    # FIFO must not wait for a writer.
    def open_file(path)
      real = File.realpath(@root + path.force_encoding(@root.encoding))
      raise Refused, 404 unless real.start_with?(File.join(@root, "")) && !path.end_with?("/")

      file = File.new(real, File::RDONLY | File::NONBLOCK | File::NOFOLLOW)
      return file if file.stat.file?

      file.close
      raise Refused, 404
    rescue Errno::ENOENT, Errno::ENOTDIR, Errno::EACCES, Errno::ELOOP, Errno::ENAMETOOLONG, Errno::ENXIO
      raise Refused, 404
    end

    # The next request head without the empty line at its end; nil: no request follows.
    def read_head
      @head_only = false
      deadline = self.class.now + IDLE_TIMEOUT
      until @input.slice!(HEAD)
        raise Refused, 431 if @input.bytesize > MAX_HEAD

        @input << (receive(deadline) || return)
      end
      head = Regexp.last_match(1)
      head.bytesize > MAX_HEAD ? raise(Refused, 431) : head
    end

    # Returns input as soon as there is some; nil: the end, the deadline, or the server stops.
    def receive(deadline)
      left = deadline - self.class.now
      return unless left.positive? && IO.select([@socket, @stopping], nil, nil, left)&.first == [@socket]

      input = @socket.read_nonblock(MAX_HEAD, exception: false)
      input == :wait_readable ? "" : input
    end

    # If input is unread at the close, the kernel sends a reset, which may destroy the response on its way.
    def linger
      @socket.close_write
      deadline = self.class.now + LINGER
      nil while receive(deadline)
    end
  end

  # A request head, checked. Raises Refused.
  class Request
    MAX_FIELDS = 100
    TOKEN = /[!\#$%&'*+\-.^`|~\w]+/n
    REQUEST_LINE = %r{\A(#{TOKEN}) ([!-~]+) HTTP/(\d)\.(\d)\z}n
    FIELD = /\A(#{TOKEN}):[ \t]*([\t -~\x80-\xFF]*?)[ \t]*\z/n
    HOST = /\A(?:\[[\h:.]+\]|[\w\-.~%!$&'()*+,;=]+)(?::\d*)?\z/n
    RANGE = /\Abytes=(?:(\d+)-(\d*)|-(\d+))\z/in
    TARGET = %r{\A(?=/|http)(?:https?://[^/?\#]+)?(/[^?\#]*)?(?:\?[^\#]*)?\z}in # origin or absolute form

    attr_reader :method

    def initialize(head)
      line, *fields = head.split("\r\n")
      @method, @target, major, minor = REQUEST_LINE.match(line || "")&.captures || raise(Refused, 400)
      raise Refused, 505 unless major == "1"
      raise Refused, 431 if fields.size > MAX_FIELDS

      @version = minor.to_i
      @fields = parse(fields)
      host = @fields["host"]
      raise Refused, 400 unless host ? host.match?(HOST) : @version.zero?
      raise Refused, 400 unless @fields.fetch("content-length", "0").match?(/\A\d+\z/)
    end

    def path
      path = (TARGET.match(@target) || raise(Refused, 400))[1] || "/"
      raise Refused, 400 if path.match?(/%(?!\h\h)|%00/) # NUL is in no file name

      path.gsub(/%\h\h/) { |escape| [escape[1, 2]].pack("H2") }
    end

    # The bytes of a single range; nil: send the whole file. That is allowed for several or malformed ranges, and
    # necessary for If-Range, because this server sends no validators. Can raise Refused.
    def range(size)
      return if @method != "GET" || @fields.key?("if-range")

      return if size.zero? # no content-range can describe an empty file

      first, last, suffix = RANGE.match(@fields.fetch("range", ""))&.captures
      return unless first || suffix

      first = suffix ? [size - suffix.to_i, 0].max : first.to_i
      last = last.to_s.empty? ? Float::INFINITY : last.to_i
      return if last < first
      raise Refused.new(416, "content-range: bytes */#{size}") unless first < size

      first..[last, size - 1].min
    end

    # Bodies are not read, therefore no request can follow one.
    def persistent?
      return false if @fields.key?("transfer-encoding") || @fields["content-length"].to_i.positive?

      options = @fields["connection"].to_s.downcase.split(/[ \t,]+/)
      @version.zero? ? options.include?("keep-alive") : !options.include?("close")
    end

    private

    # Repeated fields are joined by commas, which makes a second Host or Content-Length invalid.
    def parse(lines)
      lines.each_with_object({}) do |line, fields|
        name, value = FIELD.match(line)&.captures || raise(Refused, 400)
        name.downcase!
        fields[name] = fields.key?(name) ? "#{fields[name]}, #{value}" : value
      end
    end
  end
end

if $PROGRAM_NAME == __FILE__
  server = FileServer.new(ARGV.fetch(0) { abort("usage: server.rb DIR [PORT]") }, port: Integer(ARGV.fetch(1, 8080)))
  %w[INT TERM].each { |signal| trap(signal) { server.stop } }
  $stdout.sync = true
  puts("http://127.0.0.1:#{server.port}/")
  server.run
end
