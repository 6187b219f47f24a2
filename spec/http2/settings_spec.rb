# frozen_string_literal: true

# Settings that a client changes midway.
require "spec_helper"
require "async"
require "hyperion/http/sendfile/http2"
require_relative "../support/http2/frames_client"

RSpec.describe "settings of an HTTP/2 client", needs: :http2 do
  it "are in force when they are acknowledged" do
    path = payload_file(100_000).path
    ours, theirs = UNIXSocket.pair.each { |io| Cleanup.close(io) }
    in_force = []
    Sync do |task|
      client = FramesClient.new(theirs, window: 0)
      server = S::HTTP2.server(ours)
      serving = task.async { server.each { Protocol::HTTP::Response[200, {}, Protocol::HTTP::Body::File.open(path)] } }
      answer = client.answers[client.request("/")]
      client.receive { answer.headers }
      allow(server.framer).to receive(:write_frame).and_wrap_original do |original, frame|
        in_force.concat(server.streams.each_value.map(&:available_size)) if frame.is_a?(Protocol::HTTP2::SettingsFrame)
        original.call(frame)
      end
      client.initial_window = 1_000
      client.receive { answer.body.bytesize == 1_000 }
      client.initial_window = 3_000
      client.receive { answer.body.bytesize == 3_000 }
      client.initial_window = 500
    ensure
      server&.close
      serving&.stop
    end
    expect(in_force).to eq([1_000, 2_000, -2_500])
  end
end

RSpec.describe "options of HTTP/2", needs: :http2 do
  it "are checked where they are given" do
    require "hyperion/http/sendfile/falcon"
    ours, = UNIXSocket.pair.each { |io| Cleanup.close(io) }
    ["30", -1, Float::NAN].each do |timeout|
      [-> { S::HTTP2.new(timeout:) }, -> { S::Falcon.new(http2: { timeout: }) },
       -> { S::HTTP2.server(ours, timeout:) }].each do |given|
        expect(&given).to raise_error(ArgumentError, /timeout must be/)
      end
    end
    expect { S::HTTP2.new(timeuot: 1) }.to raise_error(ArgumentError, /timeuot/)
    expect(S::Falcon.new(http2: { timeout: nil }).options).to eq(http2: { timeout: nil })
    expect(S::HTTP2.new.options).to eq({})
  end
end
