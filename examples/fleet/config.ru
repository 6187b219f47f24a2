# frozen_string_literal: true

# One of a fleet of equal servers: files, and a path for the health check.
require "hyperion/http/sendfile/rack"

# Copies of a file on several machines have different inodes, therefore the entity tag is built from size and mtime.
files = Hyperion::Http::Sendfile::Files.new(ENV.fetch("FLEET_ROOT"), etag: %i[size mtime])

map("/health") { run ->(_env) { [200, { "content-type" => "text/plain", "content-length" => "3" }, ["ok\n"]] } }
map("/") { run files }
