# frozen_string_literal: true

# Runs in the server's process: the app of spec/servers on one server.
#
#   ruby -Ilib spec/support/servers/run.rb SERVER PORT ROOT [RUBY_FILE_TO_REQUIRE_FIRST]
#
# The first part of a path says what serves the rest: an app of this file, or one of RackSite's.
name, port, root, prelude = ARGV
require prelude if prelude

require "hyperion/http/sendfile/rack"
require "delegate"
require "rack/builder"
require "rack/deflater"
require "rack/common_logger"
require "rack/files"
require "rack/lint"
require_relative "../../../examples/servers"
S = Hyperion::Http::Sendfile
require_relative "../rack/site"

# Counts what goes straight to a socket in this process.
module Direct
  @calls = 0
  class << self
    attr_reader :calls

    def count
      @calls += 1
    end
  end

  def copy_to_socket(...)
    Direct.count
    super
  end
end
S.singleton_class.prepend(Direct)

# Changes what it wraps, and passes on all else.
class Inverted < SimpleDelegator
  def each
    super { |chunk| yield chunk.unpack("C*").map { |byte| byte ^ 255 }.pack("C*") }
  end
end

files = S::Files.new(root, {}, "application/octet-stream", timeout: 2)
inverted = lambda do |env|
  status, headers, body = files.call(env)
  [status, headers, Inverted.new(body)]
end
stock = Rack::Files.new(root, {}, "application/octet-stream")
apps = {
  "files" => files,
  "middleware" => S::Middleware.new(stock, timeout: 2),
  "logged" => Rack::CommonLogger.new(files, File.open(File::NULL, "w")),
  "inverted" => inverted,
  "inverted-logged" => Rack::CommonLogger.new(inverted, File.open(File::NULL, "w")),
  "linted" => Rack::Lint.new(files),
  "deflated" => Rack::Deflater.new(files, sync: false),
  "lengthless" => lambda do |env|
    status, headers, body = files.call(env)
    [status, headers.except("content-length"), body]
  end,
  "finished" => lambda do |env|
    (env["rack.response_finished"] || env["rack.after_reply"])&.push(->(*) {})
    files.call(env)
  end,
  "calls" => ->(_) { [200, { "content-type" => "text/plain" }, [Direct.calls.to_s]] }
}
site = RackSite.app(ENV.fetch("RACK_SITE", root))
app = lambda do |env|
  _, first, rest = env["PATH_INFO"].match(%r{\A/([a-z-]+)(.*)\z}mn).to_a
  own = apps[first]
  own ? own.call(env.merge("SCRIPT_NAME" => "/#{first}", "PATH_INFO" => rest)) : site.call(env)
end

workers = Integer(ENV.fetch("WORKERS", "1"))
Servers.run(name, app, port: Integer(port), workers: name == "puma" ? 4 : workers)
