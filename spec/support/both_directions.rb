# frozen_string_literal: true

# A TLS connection that carries a file one way while the peer writes the other way.
module BothDirections
  def expect_both_directions(out, peer, size)
    upload = payload(700_001)
    got = Thread.new { out.read(upload.bytesize) }
    sent = Thread.new { peer.write(upload) }
    download = Thread.new { peer.read(size) }
    expect(S.copy_to_socket(out, payload_file(size))).to eq(size)
    expect(download.value).to be_payload(payload(size))
    sent.value
    expect(got.value).to be_payload(upload)
  end
end
