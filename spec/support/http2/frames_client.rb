# frozen_string_literal: true

# A client that sees every frame, and does with windows and streams what it is told. It raises when the server breaks
# the framing, or sends more than a window allows (RFC 9113, sections 4 to 6).
require "openssl"
require "protocol/hpack"

class FramesClient
  class Broken < StandardError; end

  DATA = 0
  HEADERS = 1
  RST_STREAM = 3
  SETTINGS = 4
  PING = 6
  GOAWAY = 7
  WINDOW_UPDATE = 8
  CONTINUATION = 9
  ACK = 1
  END_STREAM = 1
  END_HEADERS = 4
  DEFAULT_WINDOW = 65_535
  LARGE_WINDOW = (1 << 31) - 1
  MAX_FRAME_SIZE = 16_384
  PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
  private_constant :PREFACE, :ACK

  # What came of a request.
  Answer = Struct.new(:headers, :body, :ended, :reset, :frames, :window, :trailers) do
    def status
      headers && Integer(headers.assoc(":status").last)
    end

    def [](name)
      Symbol === name ? super : headers.assoc(name)&.last
    end

    def over?
      ended || reset
    end
  end

  attr_reader :socket

  # @return [Hash{Integer=>Answer}] by stream
  attr_reader :answers

  # @return [Array<Integer>] the streams of DATA frames, in the order of their coming
  attr_reader :order

  # @return [Integer, nil] the error code of a GOAWAY
  attr_reader :goaway

  # @param socket [#write, #readpartial] plain or encrypted
  # @param window [Integer] of each stream, from its beginning
  # @param connection_window [Integer]
  # @param max_frame_size [Integer]
  # @param grant [Boolean] whether what has come is made up for at once
  def initialize(socket, window: DEFAULT_WINDOW, connection_window: DEFAULT_WINDOW, max_frame_size: MAX_FRAME_SIZE,
                 grant: false)
    @socket = socket
    @received = "".b
    @answers = {}
    @order = []
    @pongs = []
    @next_id = 1
    @window = window
    @connection_window = DEFAULT_WINDOW
    @max_frame_size = max_frame_size
    @grant = grant
    @hpack = Protocol::HPACK::Context.new
    @socket.write(PREFACE + frame(SETTINGS, 0, 0, settings(window, max_frame_size)))
    grant(connection_window - DEFAULT_WINDOW) if connection_window > DEFAULT_WINDOW
  end

  # @return [Integer] the stream
  def request(path, headers = {}, method: "GET")
    id = @next_id
    @next_id += 2
    @answers[id] = Answer.new(nil, "".b, false, nil, [], @window)
    fields = { ":method" => method, ":scheme" => "http", ":authority" => "127.0.0.1", ":path" => path, **headers }
    send_frame(HEADERS, END_STREAM | END_HEADERS, id, fields.map { |name, value| literal(name) + literal(value) }
                                                            .map { |field| "\0#{field}".b }.join)
    id
  end

  # A request, and what comes of it.
  def get(path, headers = {}, method: "GET")
    answer(request(path, headers, method: method))
  end

  # Reads until the stream is over.
  def answer(id)
    receive { @answers.fetch(id).over? }
    @answers.fetch(id)
  end

  # Reads frames until the block says that it is enough.
  def receive
    receive_frame until yield
  end

  # Reads what is there and what is on its way: until the server has answered a ping.
  def catch_up
    ping = [@next_ping = (@next_ping || 0) + 1].pack("Q>")
    send_frame(PING, 0, 0, ping)
    receive { @pongs.include?(ping) }
  end

  # Reads all that still comes, until the connection ends.
  #
  # @return [Boolean] whether that was between two frames
  def drain
    loop { receive_frame }
  rescue EOFError, Errno::ECONNRESET, OpenSSL::SSL::SSLError
    @received.empty?
  end

  def grant(size, id = 0)
    id.zero? ? @connection_window += size : @answers.fetch(id).window += size
    send_frame(WINDOW_UPDATE, 0, id, [size].pack("N"))
  end

  def reset(id, code = 8)
    send_frame(RST_STREAM, 0, id, [code].pack("N"))
  end

  # Says that no stream of the server's will be taken any more.
  def say_goodbye
    send_frame(GOAWAY, 0, 0, [0, 0].pack("NN"))
  end

  # Changes the window of every stream, those that are open too.
  def initial_window=(size)
    @answers.each_value { |answer| answer.window += size - @window }
    @window = size
    @acknowledged = false
    send_frame(SETTINGS, 0, 0, settings(size, @max_frame_size))
    receive { @acknowledged }
  end

  private

  def settings(window, max_frame_size)
    [4, window, 5, max_frame_size].pack("nNnN")
  end

  def frame(type, flags, id, payload)
    [payload.bytesize >> 16, payload.bytesize & 0xffff, type, flags, id].pack("CnCCN") + payload.b
  end

  def send_frame(...)
    @socket.write(frame(...))
  end

  # Without Huffman's code, RFC 7541, section 5.2.
  def literal(text)
    raise ArgumentError, "too long" if text.bytesize > 126

    [text.bytesize].pack("C") + text.b
  end

  def receive_frame
    fill(9)
    high, low, type, flags, id = @received.unpack("CnCCN")
    length = (high << 16) | low
    raise Broken, "a frame of #{length} bytes, type #{type}" if length > @max_frame_size

    fill(9 + length)
    apply(type, flags, id, @received.slice!(0, 9 + length).byteslice(9..))
  end

  def fill(size)
    @received << @socket.readpartial(256 * 1024) while @received.bytesize < size
  end

  def apply(type, flags, id, payload)
    case type
    when DATA then data(flags, id, payload)
    when HEADERS then headers(flags, id, payload)
    when RST_STREAM then @answers.fetch(id).reset = payload.unpack1("N")
    when SETTINGS then flags.zero? ? send_frame(SETTINGS, ACK, 0, "") : @acknowledged = true
    when PING then flags.zero? ? send_frame(PING, ACK, 0, payload) : @pongs << payload
    when GOAWAY then @goaway = payload.unpack1("@4N")
    when WINDOW_UPDATE then nil
    else raise Broken, "a frame of type #{type}"
    end
  end

  def data(flags, id, payload)
    answer = @answers.fetch(id) { raise Broken, "DATA for stream #{id}" }
    raise Broken, "DATA after the end of stream #{id}" if answer.over?

    answer.window -= payload.bytesize
    @connection_window -= payload.bytesize
    raise Broken, "window overrun" if (answer.window.negative? || @connection_window.negative?) && !payload.empty?

    answer.body << payload
    answer.frames << payload.bytesize
    answer.ended = flags.anybits?(END_STREAM)
    @order << id
    make_up(id, payload.bytesize, answer) if @grant && !payload.empty?
  end

  def make_up(id, size, answer)
    grant(size)
    grant(size, id) unless answer.ended
  end

  def headers(flags, id, payload)
    raise Broken, "HEADERS without END_HEADERS" unless flags.anybits?(END_HEADERS)

    answer = @answers.fetch(id)
    fields = Protocol::HPACK::Decompressor.new(payload, @hpack).decode
    raise Broken, "HEADERS after the end of stream #{id}" if answer.over?
    raise Broken, "trailers that do not end stream #{id}" if answer.headers && flags.nobits?(END_STREAM)

    answer.headers ? answer.trailers = fields : answer.headers = fields
    answer.ended = flags.anybits?(END_STREAM)
  end
end
