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

  # HTTP/1 sends by sendfile, and HTTP/2 as DATA frames, also over https.
  endpoint_options({ reuse_address: true, protocol: Hyperion::Http::Sendfile::Falcon })

  # Without Falcon's compression, which would change the bytes of text, but keep its etag.
  middleware { Protocol::Rack::Adapter.new(rack_app) }
end
