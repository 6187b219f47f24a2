# frozen_string_literal: true

# The parts for Rack apps and servers: `require "hyperion/http/sendfile/rack"`. They use Rack's protocol, but no class
# of the gem rack.
require "hyperion/http/sendfile"
require_relative "versions"
require_relative "notice"
require_relative "rack/options"
require_relative "rack/server_socket"
require_relative "rack/body"
require_relative "rack/files"
require_relative "rack/middleware"
