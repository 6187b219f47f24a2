# frozen_string_literal: true

# Files on Falcon: bundle exec falcon-host examples/falcon.rb, with a config.ru in the current folder.
require "falcon/environment/rackup"
require "falcon/environment/server"
require "hyperion/http/sendfile/falcon"

service "files" do
  include Falcon::Environment::Rackup
  include Falcon::Environment::Server

  root Dir.pwd
  url "http://127.0.0.1:#{ENV.fetch("PORT", "9292")}"

  # HTTP/1 goes by sendfile, and HTTP/2 by DATA frames of the file, over https too.
  endpoint_options({ reuse_address: true, protocol: Hyperion::Http::Sendfile::Falcon })

  # Without Falcon's compression, which would give text other bytes under the same etag.
  middleware { Protocol::Rack::Adapter.new(rack_app) }
end
