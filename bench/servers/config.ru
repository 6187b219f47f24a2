# frozen_string_literal: true

# The files below BENCH_ROOT, by the app that BENCH_APP names.

root = ENV.fetch("BENCH_ROOT")

case ENV.fetch("BENCH_APP")
when "Rack::Files"
  require "rack/files"
  run Rack::Files.new(root)
when "Files"
  require "hyperion/http/sendfile/rack"
  run Hyperion::Http::Sendfile::Files.new(root)
when "Middleware"
  require "hyperion/http/sendfile/rack"
  require "rack/files"
  use Hyperion::Http::Sendfile::Middleware
  run Rack::Files.new(root)
end
