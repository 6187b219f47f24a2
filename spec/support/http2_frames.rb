# frozen_string_literal: true

# Reads frames off a wire by RFC 9113 alone, and knows nothing of how they were written.
module Http2Frames
  DATA = 0
  HEADERS = 1
  END_STREAM = 0x1
  PADDED = 0x8

  Frame = Struct.new(:octets, :type, :flags, :stream_id, :payload) do
    def end_stream?
      flags.anybits?(END_STREAM)
    end

    def padded?
      flags.anybits?(PADDED)
    end

    # The payload without its pad length and padding, which has to be zeros.
    def data
      return payload unless padded?

      pad = payload.getbyte(0)
      raise "a padding of #{pad} in #{octets} bytes" if pad >= octets
      raise "padding that is not zero" unless payload.byteslice(octets - pad, pad).count("^\0").zero?

      payload.byteslice(1, octets - 1 - pad)
    end
  end

  # The whole frames at the start of a wire, and the bytes of one that has been cut.
  def self.parse(wire)
    frames = []
    at = 0
    while wire.bytesize - at >= 9
      high, low, type, flags, stream = wire.byteslice(at, 9).unpack("CnCCN")
      length = (high << 16) + low
      break if wire.bytesize - at - 9 < length

      raise "the reserved bit is set" if stream.anybits?(1 << 31)

      frames << Frame.new(length, type, flags, stream, wire.byteslice(at + 9, length))
      at += 9 + length
    end
    [frames, wire.byteslice(at..)]
  end

  # What a region looks like on the wire, as the contract has it.
  def self.expected(content, stream_id:, max_frame_size: 16_384, padding: 0, end_stream: true)
    room = padding.zero? ? max_frame_size : max_frame_size - 1 - padding
    pieces = (0...content.bytesize).step(room).map { |at| content.byteslice(at, room) }
    pieces = [""] if pieces.empty? && end_stream
    pieces.each_with_index.sum("".b) do |piece, index|
      flags = end_stream && index == pieces.size - 1 ? 1 : 0
      body = padding.zero? ? piece : [padding].pack("C") << piece << ("\0" * padding)
      flags += 8 unless padding.zero?
      [body.bytesize].pack("N").byteslice(1, 3) << [0, flags, stream_id].pack("CCN") << body
    end
  end

  # A HEADERS frame, of what is no header block, but as long as one may be.
  def self.headers(length, stream_id:)
    [length].pack("N").byteslice(1, 3) << [HEADERS, 4, stream_id].pack("CCN") << Random.new(length).bytes(length)
  end
end
