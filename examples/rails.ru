# frozen_string_literal: true

# A Rails application in one file, whose files are sent by sendfile.
#
#   gem install railties puma && FILES=/some/folder puma examples/rails.ru, then http://127.0.0.1:9292/NAME
require "action_controller/railtie"
require "hyperion/http/sendfile/rack"

# In an ordinary application, only the line with `insert_before` is needed, in config/application.rb.
class Application < Rails::Application
  config.secret_key_base = SecureRandom.hex(32)
  config.eager_load = false
  config.logger = Logger.new($stderr)
  config.hosts.clear

  # Outermost, so that no other middleware changes the body. Do not combine it with
  # config.action_dispatch.x_sendfile_header, which leaves the file to nginx or Apache.
  config.middleware.insert_before 0, Hyperion::Http::Sendfile::Middleware, timeout: 30

  routes.append do
    get "/ranges/*name", to: "files#ranges", format: false
    get "/*name", to: "files#show", format: false
  end
end

# Any file below a folder.
class FilesController < ActionController::Base
  FOLDER = ENV.fetch("FILES", Dir.pwd)

  FILES = Hyperion::Http::Sendfile::Files.new(nil)

  rescue_from(SystemCallError) { head :not_found }

  def show
    send_file path, disposition: "inline"
  end

  # send_file supports neither Range nor If-None-Match; this does. If the controller has nothing to decide, mount Files
  # in config/routes.rb instead:
  #   mount Hyperion::Http::Sendfile::Files.new("storage"), at: "/files"
  def ranges
    self.status, headers, self.response_body = FILES.serving(request, path)
    response.headers.merge!(headers)
  end

  private

  def path
    path = File.realpath(params[:name], FOLDER)
    return path if path.start_with?("#{File.realpath(FOLDER)}/") && File.file?(path)

    raise Errno::ENOENT, path
  end
end

Application.initialize!
run Rails.application
