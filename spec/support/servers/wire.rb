# frozen_string_literal: true

# A client that sees every byte: HTTP/1.1 over one socket, responses as they come.
require_relative "../rack/site"

class Wire
  class Broken < StandardError; end

  attr_reader :socket

  # @param socket [#write, #readpartial] plain or encrypted
  def initialize(socket)
    @socket = socket
    @received = "".b
  end

  def send_request(method, target, headers = {}, version: "1.1")
    fields = { "host" => "127.0.0.1" }.merge(headers).map { |name, value| "#{name}: #{value}\r\n".b }
    @socket.write("#{method} ".b << target.b << " HTTP/#{version}\r\n" << fields.join << "\r\n")
  end

  # @param method [String] what was asked
  # @return [RackSite::Answer]
  def answer(method)
    status, headers = head
    body = bodyless?(method, status) ? "".b : body(headers)
    RackSite::Answer.new(status, headers, body)
  end

  def call(method, target, headers = {})
    send_request(method, target, headers)
    answer(method)
  end

  # @return [Array(Integer, Hash)] of the response that begins
  def head
    fill until (size = @received.index("\r\n\r\n"))
    line, *fields = @received.slice!(0, size + 4).split("\r\n")
    status = line[%r{\AHTTP/1\.[01] (\d{3})(?: |\z)}, 1] or raise Broken, "no status line: #{line.inspect}"

    headers = Hash.new { |all, name| all[name] = [] }
    fields.each do |field|
      name, value = field.split(/:[ \t]*/, 2)
      headers[name.downcase] << value
    end
    [Integer(status), {}.merge(headers.transform_values { |values| values.join(", ") })]
  end

  # @return [String] at most that many bytes, at least one
  def read_some(limit)
    fill if @received.empty?
    @received.slice!(0, limit)
  end

  # @return [String] all that still comes, whichever way it ends
  def rest
    loop { fill }
  rescue EOFError, SystemCallError
    @received
  end

  def closed?
    fill
    false
  rescue EOFError, Errno::ECONNRESET
    true
  end

  def close
    @socket.close
  end

  private

  def bodyless?(method, status)
    method == "HEAD" || status == 304 || status == 204
  end

  def body(headers)
    if headers["transfer-encoding"] == "chunked"
      chunked
    elsif (length = headers["content-length"])
      take(Integer(length))
    else
      rest.dup.tap { @received.clear }
    end
  end

  def chunked
    content = "".b
    loop do
      fill until (size = @received.index("\r\n"))
      length = Integer(@received.slice!(0, size + 2), 16)
      content << take(length)
      raise Broken, "no end of chunk" unless take(2) == "\r\n"
      return content if length.zero?
    end
  end

  def take(length)
    fill while @received.bytesize < length
    @received.slice!(0, length)
  end

  def fill
    @received << @socket.readpartial(256 * 1024)
  end
end
