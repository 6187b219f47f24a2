# frozen_string_literal: true

# Runs in the server's process: a folder, with every answer about it noted, and a place for a page to report to.
#
#   ruby -Ilib spec/support/servers/recorded.rb SERVER PORT ROOT
require "hyperion/http/sendfile/rack"
require "json"
require_relative "../../../examples/servers"

name, port, root = ARGV
files = Hyperion::Http::Sendfile::Files.new(root)
note = lambda do |file, entry|
  File.write(File.join(root, file), "#{JSON.generate(entry)}\n", mode: "a") # O_APPEND: whole lines, whoever writes
end
app = lambda do |env|
  if env["PATH_INFO"] == "/report"
    note.call("reports", JSON.parse(env["rack.input"].read))
    next [204, {}, []]
  end
  status, headers, = response = files.call(env)
  note.call("answers", { path: env["PATH_INFO"], range: env["HTTP_RANGE"], status: status,
                         content_range: headers["content-range"] })
  response
end
Servers.run(name, app, port: Integer(port))
