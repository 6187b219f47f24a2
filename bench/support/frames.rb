# frozen_string_literal: true

require "socket"

module Bench
  # A client of HTTP/2 that only looks at the heads of frames, so that it is not what is measured. Its windows are as
  # large as can be.
  class Frames
    PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    LARGEST = (1 << 31) - 1
    BUFFER = 256 * 1024
    HEADER = 9
    END_STREAM = 1
    private_constant :PREFACE, :LARGEST, :BUFFER, :HEADER, :END_STREAM

    # @return [Hash{Integer=>Integer}] bytes of DATA by stream
    attr_reader :received

    def initialize(port)
      @socket = TCPSocket.new("127.0.0.1", port)
      @socket.setsockopt(:TCP, :NODELAY, true)
      @buffer = String.new(capacity: BUFFER)
      @position = @skip = 0
      @taken = "".b
      @next_id = 1
      @received = Hash.new(0)
      @socket.write(PREFACE, frame(4, 0, 0, [4, LARGEST].pack("nN")), frame(8, 0, 0, [LARGEST - 65_535].pack("N")))
    end

    # @return [Integer] the stream
    def request(path)
      id = @next_id
      @next_id += 2
      fields = { ":method" => "GET", ":scheme" => "http", ":authority" => "127.0.0.1", ":path" => path }
      block = fields.map { |name, value| [0, name.bytesize, name, value.bytesize, value].pack("CCa*Ca*") }.join
      @socket.write(frame(1, 5, id, block))
      id
    end

    # Reads until the streams have ended.
    def wait(*ids)
      until ids.empty?
        high, low, type, flags, id = next_frame.unpack("CnCCN")
        length = (high << 16) | low
        @skip = length
        raise "bench: stream #{id} was reset" if type == 3
        raise "bench: the server closes the connection" if type == 7

        @received[id] += length if type.zero?
        ids.delete(id) if type < 2 && flags.anybits?(END_STREAM)
      end
    end

    # Reads until there was a frame of each of the streams.
    def wait_for_data(*ids)
      until ids.empty?
        high, low, type, _, id = next_frame.unpack("CnCCN")
        @skip = (high << 16) | low
        @received[id] += @skip if type.zero?
        ids.delete(id) if type.zero?
      end
    end

    def get(path)
      wait(request(path))
    end

    # @return [String] of a response that is one frame, or two, the second of them empty
    def ask(path)
      id = request(path)
      body = nil
      loop do
        high, low, type, flags, stream = next_frame.unpack("CnCCN")
        length = (high << 16) | low
        body = take(length).dup if type.zero? && stream == id && length.positive?
        @skip = length unless type.zero? && stream == id
        return body if stream == id && flags.anybits?(END_STREAM)
      end
    end

    def close
      @socket.close
    end

    private

    def frame(type, flags, id, payload)
      [payload.bytesize >> 16, payload.bytesize & 0xffff, type, flags, id].pack("CnCCN") + payload
    end

    def next_frame
      take(HEADER)
    end

    # That many bytes, after those to be skipped.
    def take(length)
      @taken.clear
      while @taken.bytesize < length
        left = @buffer.bytesize - @position
        if @skip >= left
          @skip -= left
          fill
        else
          @position += @skip
          @skip = 0
          piece = [length - @taken.bytesize, @buffer.bytesize - @position].min
          @taken << @buffer.byteslice(@position, piece)
          @position += piece
        end
      end
      @taken
    end

    def fill
      @socket.readpartial(BUFFER, @buffer)
      @position = 0
    end
  end
end
