# frozen_string_literal: true

# Asks the app itself, checked by Rack::Lint on both sides, and closes the body as a server would.
require "rack/lint"
require_relative "site"

class DirectClient
  def initialize(app)
    @app = Rack::Lint.new(app)
  end

  # @return [RackSite::Answer]
  def call(method, target, headers = {})
    status, fields, body = @app.call(env(method, target, headers))
    content = +"".b
    body.each { |chunk| content << chunk.b }
    RackSite::Answer.new(status, fields.to_h, content)
  ensure
    body&.close
  end

  private

  def env(method, target, headers)
    path, query = target.b.split("?", 2)
    { "REQUEST_METHOD" => method, "SCRIPT_NAME" => "", "PATH_INFO" => path, "QUERY_STRING" => query.to_s,
      "SERVER_NAME" => "127.0.0.1", "SERVER_PORT" => "80", "SERVER_PROTOCOL" => "HTTP/1.1",
      "rack.url_scheme" => "http", "rack.errors" => $stderr, "rack.input" => nil }
      .compact.merge(headers.to_h { |name, value| ["HTTP_#{name.upcase.tr("-", "_")}", value.b] })
  end
end
