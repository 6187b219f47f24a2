# frozen_string_literal: true

# Several Ractors, each with connections of its own.

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
    content = File.binread(ARGV.fetch(0)).freeze

    ractors = Array.new(4) do
      Ractor.new(ARGV.fetch(0), content) do |path, content|
        file = File.open(path, "rb")
        5.times do
          Ways::NAMES.each do |name|
            out, peer = UNIXSocket.pair
            reader = Thread.new { peer.read }
            sent = Ways.public_send(name, out, file)
            out.close
            received = reader.value
            raise "\#{name}: \#{received.bytesize} of \#{sent}" unless received == content.byteslice(0, sent)
          end
        end
        Hyperion::Http::Sendfile.stats[:responses].values.sum
      end
    end
    puts ractors.map(&:take).max
  RUBY

  %w[0 1].each do |splice|
    it "sends every byte (HYPERION_HTTP_SPLICE=#{splice})" do
      ruby = [RbConfig.ruby, "-W0", *$LOAD_PATH.flat_map { |path| ["-I", path] }]
      output, status = Open3.capture2e(*ruby, "-e", script, Payload.path(400_000), splice)
      expect(status).to be_success, output
      expect(output.to_i).to be >= 5 * 4 # what one Ractor sent whole, and the others
    end
  end
end
