# frozen_string_literal: true

# config.ru on Falcon, one process, by the protocol that BENCH_PROTOCOL names. `falcon-host` reads this.

require "falcon/environment/rackup"
require "falcon/environment/server"
require "hyperion/http/sendfile/falcon"

service "bench" do
  include Falcon::Environment::Rackup
  include Falcon::Environment::Server

  count 1
  endpoint_options({ reuse_address: true, protocol: Object.const_get(ENV.fetch("BENCH_PROTOCOL")) })
  url "http://127.0.0.1:#{ENV.fetch("BENCH_PORT")}"
end
