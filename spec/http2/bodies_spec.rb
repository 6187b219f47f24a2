# frozen_string_literal: true

# Which bodies are looked through: those that pass on what they wrap as it is, whatever their class.
require "spec_helper"
require "protocol/http/body/completable"
require "protocol/http/body/deflate"
require "protocol/http/body/digestable"
require "protocol/http/body/rewindable"
require "rack/body_proxy"
require "hyperion/http/sendfile/falcon"

RSpec.describe "bodies on async-http that wrap others" do
  wrapper = Protocol::HTTP::Body::Wrapper
  looked_through = {
    "a plain wrapper" => ->(body) { wrapper.new(body) },
    "Completable" => ->(body) { Protocol::HTTP::Body::Completable.new(body, proc {}) },
    "one that counts what is open" => lambda do |body|
      Class.new(wrapper) do
        def close(error = nil) = super
        def rewindable? = false
        def rewind = false
        def metric = 1
      end.new(body)
    end,
    "one in another" => ->(body) { Class.new(wrapper).new(Protocol::HTTP::Body::Completable.new(body, proc {})) }
  }
  kept = {
    "Deflate" => ->(body) { Protocol::HTTP::Body::Deflate.for(body) },
    "Digestable" => ->(body) { Protocol::HTTP::Body::Digestable.new(body) },
    "Rewindable" => ->(body) { Protocol::HTTP::Body::Rewindable.new(body) },
    "one that reads otherwise" => ->(body) { Class.new(wrapper) { def read = super&.upcase }.new(body) },
    "one that iterates otherwise" => ->(body) { Class.new(wrapper) { def each = yield("other") }.new(body) },
    "one that writes by itself" => ->(body) { Class.new(wrapper) { def stream? = true }.new(body) },
    "one of another length" => ->(body) { Class.new(wrapper) { def length = super + 1 }.new(body) },
    "one that a module changes" => lambda do |body|
      wrapper.new(body).extend(Module.new { def read = super&.upcase })
    end,
    "one whose class a module changes" => lambda do |body|
      Class.new(wrapper).prepend(Module.new { def read = super&.upcase }).new(body)
    end
  }
  bodies = S.const_get(:AsyncHTTP)
  let(:inner) { Protocol::HTTP::Body::Buffered.wrap("bytes") }

  looked_through.each do |what, wrap|
    it "looks through #{what}" do
      expect(bodies.unwrapped(wrap.call(inner))).to equal(inner)
    end
  end

  kept.each do |what, wrap|
    it "does not look through #{what}" do
      body = wrap.call(inner)
      expect(bodies.unwrapped(body)).to equal(body)
      outer = wrapper.new(body)
      expect(bodies.unwrapped(outer)).to equal(body)
    end
  end

  describe "what a Rack app answers" do
    let(:file_body) { S::FileBody.new(nil, ["bytes"], timeout: 1) }

    def found(body)
      S.const_get(:AsyncHTTP).regions_of(Protocol::Rack::Body::Enumerable.new(body, 5))
    end

    it "is found in Rack::BodyProxy" do
      expect(found(file_body)).to equal(file_body)
      expect(found(Rack::BodyProxy.new(Class.new(Rack::BodyProxy).new(file_body) { nil }) { nil })).to equal(file_body)
    end

    it "is not found in one that iterates otherwise, nor if it does so itself" do
      upcase = Module.new { def each = super(&:upcase) }
      proxies = [Class.new(Rack::BodyProxy) { def each = yield("other") }.new(file_body) { nil },
                 Rack::BodyProxy.new(file_body) { nil }.extend(upcase),
                 Class.new(S::FileBody) { def each = super(&:upcase) }.new(nil, ["bytes"], timeout: 1),
                 S::FileBody.new(nil, ["bytes"], timeout: 1).extend(upcase)]
      expect(proxies.map { |proxy| found(proxy) }).to all(be_nil)
    end
  end

  # A reader may be done with a file before anybody waits for it.
  it "go on at once if a file is read in at once", needs: :http2 do
    file = payload_file(100_000)
    allow(S.const_get(:Native)).to receive(:resident?).and_return(false)
    sender = Object.new
    def sender.beside = yield
    connection = Struct.new(:sender, :available_size).new(sender, 65_535)
    stream = Struct.new(:connection, :available_size) { def closed? = false }.new(connection, 65_535)
    regions = S::FileBody.new(file, [[0, 100_000]], timeout: nil)
    expect(S::HTTP2.const_get(:Output).new(stream, nil, regions, nil).room?).to be(true)
  end
end
