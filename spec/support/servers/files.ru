# frozen_string_literal: true

# For servers that are started by their own command.
require "hyperion/http/sendfile/rack"
require "rack/files"

root = ENV.fetch("FILES_ROOT")
files = Hyperion::Http::Sendfile::Files.new(root)
middleware = Hyperion::Http::Sendfile::Middleware.new(Rack::Files.new(root))
map("/files") { run files }
map("/middleware") { run middleware }
