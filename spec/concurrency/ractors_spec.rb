# frozen_string_literal: true

# Several Ractors, each with connections of its own. Their peers are threads of the spec: threads in several Ractors at
# once can block each other for ever in Ruby 3.4, with nothing loaded but socket.

require "spec_helper"
require "open3"

RSpec.describe Hyperion::Http::Sendfile, "in Ractors" do
  # In a process of its own, which the first Ractor changes for good.
  script = <<~RUBY
    require "hyperion/http/sendfile"
    require "socket"

    module Ways
      S = Hyperion::Http::Sendfile

      class << self
        def copy(out, file) = S.copy(out, file, 0, 3_000).first
        def copy_splice(out, file) = S.copy_splice(out, file, 0, 3_000).first
        def small(out, file) = S.copy_to_socket(out, file, 0, 9_000)
        def large(out, file) = S.copy_to_socket(out, file, 0, 400_000, timeout: 10) { |sent| sent }
        def blocking(out, file) = S.copy_to_socket_blocking(out, file, 0, 400_000, head: "")

        def wrapper(out, file)
          S.copy_to_socket(Struct.new(:io) { def write(*bytes) = io.write(*bytes) }.new(out), file, 0, 100_000)
        end

        def truncated(out, file)
          S.copy_to_socket(out, file, 0, 500_000)
        rescue S::TruncatedError => e
          e.bytes_sent
        end
      end
      NAMES = singleton_methods.freeze
    end
    ENV["HYPERION_HTTP_SPLICE"] = ARGV.fetch(1)

    ractors = Array.new(4) do
      Ractor.new(ARGV.fetch(0), ARGV.fetch(2)) do |path, server|
        file = File.open(path, "rb")
        5.times do
          Ways::NAMES.each do |name|
            out = UNIXSocket.new(server)
            sent = Ways.public_send(name, out, file)
            out.close_write
            received = out.read
            out.close
            raise "\#{name}: \#{received}, not \#{sent}" unless received == sent.to_s
          end
        end
        Hyperion::Http::Sendfile.stats[:responses].values.sum
      end
    end
    puts ractors.map(&:take).max
  RUBY

  # Answers each connection with the number of bytes that it has sent, where these are the first of the content.
  def answer_each(server, content)
    Thread.new do
      loop do
        Thread.new(server.accept) do |peer|
          received = peer.read
          peer.write(received == content.byteslice(0, received.bytesize) ? received.bytesize.to_s : "other bytes")
        ensure
          peer.close
        end
      end
    end
  end

  %w[0 1].each do |splice|
    it "sends every byte (HYPERION_HTTP_SPLICE=#{splice})" do
      path = Payload.path(400_000)
      address = File.join(File.dirname(path), "ractors-#{splice}")
      server = UNIXServer.new(address)
      answering = answer_each(server, File.binread(path))
      ruby = [RbConfig.ruby, "-W0", *$LOAD_PATH.flat_map { |path| ["-I", path] }]
      output, status = Open3.capture2e(*ruby, "-e", script, path, splice, address)
      expect(status).to be_success, output
      expect(output.to_i).to be >= 5 * 4 # what one Ractor sent whole, and the others
    ensure
      answering&.kill
      server&.close
    end
  end
end
