# frozen_string_literal: true

# One of a fleet of equal servers: files, and a place for the health check to ask.
require "hyperion/http/sendfile/rack"

# On several machines copies of a file differ in inode, so the entity tag is made of what they share.
files = Hyperion::Http::Sendfile::Files.new(ENV.fetch("FLEET_ROOT"), etag: %i[size mtime])

map("/health") { run ->(_env) { [200, { "content-type" => "text/plain", "content-length" => "3" }, ["ok\n"]] } }
map("/") { run files }
