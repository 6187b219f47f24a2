# frozen_string_literal: true

# What Rack apps and servers use; `require "hyperion/http/sendfile/rack"`. It speaks Rack's protocol, and
# needs no class of the gem rack.
require "hyperion/http/sendfile"
require_relative "versions"
require_relative "notice"
require_relative "rack/options"
require_relative "rack/server_socket"
require_relative "rack/body"
require_relative "rack/files"
require_relative "rack/middleware"
