# frozen_string_literal: true

# Serves a directory on 127.0.0.1, by any of five servers, until SIGINT or SIGTERM:
#
#   ruby -Ilib examples/serve.rb [DIR [PORT [SERVER]]]      (or: rake "serve[DIR,PORT,SERVER]")
#
# Hyperion::Http::Sendfile::Files sends a file; a directory is shown as a list of its entries.
require "erb"
require "hyperion/http/sendfile/rack"
require_relative "servers"

# A page for each directory; Files answers for files, and for paths that do not exist.
class Listing
  HTML = ERB.new(<<~TEMPLATE, trim_mode: "-")
    <!DOCTYPE html>
    <html lang="en">
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width">
    <title><%= text(title) %></title>
    <h1><%= text(title) %></h1>
    <ul>
    <%- unless title == "/" -%>
    <li><a href="../">../</a>
    <%- end -%>
    <%- entries.each do |name| -%>
    <li><%- if addressable?(name) -%><a href="./<%= h(u(name)) %>"><%= text(name) %></a>
    <%- else -%><%= text(name) %> <em>(its name is not UTF-8)</em>
    <%- end -%>
    <%- end -%>
    </ul>
  TEMPLATE
  METHODS = %w[GET HEAD OPTIONS].freeze
  private_constant :HTML, :METHODS

  include ERB::Util

  def initialize(root)
    @root = File.realpath(root).b # names are bytes in every locale
    @files = Hyperion::Http::Sendfile::Files.new(@root)
  end

  def call(env)
    path = env["PATH_INFO"].to_s.b
    directory = directory(path)
    method = env["REQUEST_METHOD"]
    return @files.call(env) unless directory && METHODS.include?(method)
    return [200, { "allow" => METHODS.join(", "), "content-length" => "0" }, []] if method == "OPTIONS"
    return redirect("#{path}/", env["QUERY_STRING"].to_s) unless path.end_with?("/")

    page = page(directory).b
    [200, { "content-type" => "text/html; charset=utf-8", "content-length" => page.bytesize.to_s },
     method == "HEAD" ? [] : [page]]
  end

  private

  # @return [String, nil] nil: not a directory, or one outside of the root
  def directory(path)
    name = path.gsub(/%\h\h/) { |escape| escape[1..].hex.chr }
    return if name.include?("\0") || !addressable?(name)

    directory = File.realpath(File.join(@root, name)).b
    directory if readable?(directory) && "#{directory}/".start_with?("#{@root}/".squeeze("/"))
  rescue SystemCallError
    nil
  end

  def readable?(directory)
    File.directory?(directory) && File.readable?(directory)
  end

  def page(directory)
    title = "#{directory.delete_prefix(@root)}/"
    entries = Dir.children(directory).map(&:b).reject { |name| name.start_with?(".") }
    entries.map! { |name| File.directory?(File.join(directory, name)) ? "#{name}/" : name }.sort!
    HTML.result(binding)
  end

  # One slash at the start, because two would name another host.
  def redirect(path, query)
    location = path.sub(%r{\A/+}, "/")
    location += "?#{query}" unless query.empty?
    [301, { "location" => location, "content-length" => "0" }, []]
  end

  # Files answers 400 to other names.
  def addressable?(name)
    name.dup.force_encoding(Encoding::UTF_8).valid_encoding?
  end

  def text(name)
    h(name.dup.force_encoding(Encoding::UTF_8).scrub)
  end

  # A slash at the end marks a directory.
  def u(name)
    url_encode(name).gsub("%2F", "/")
  end
end

# The command: checks its arguments, and reports a wrong one in one line.
module Serve
  NAME = File.basename($PROGRAM_NAME, ".rb")
  USAGE = "usage: #{NAME} [DIR [PORT [SERVER]]]   serves DIR (.) at #{Servers::HOST}:PORT (8080) by " \
          "#{Servers.names.join(", ")} (the first that is installed)".freeze

  class << self
    def call(*arguments)
      return puts(USAGE) if arguments.intersect?(%w[-h --help])

      dir, port, server = arguments.map { |argument| argument unless argument.empty? }
      run(directory(dir || "."), number(port || "8080"), server(server))
    end

    private

    def run(dir, port, server)
      Servers.run(server, Listing.new(dir), port: port) do
        puts "Serving #{File.realpath(dir)} at http://#{Servers::HOST}:#{port}/ with #{server}; Ctrl-C stops it."
        $stdout.flush
      end
    rescue Errno::EADDRINUSE
      refuse("port #{port} is in use")
    rescue Errno::EACCES
      refuse("port #{port} is for root")
    rescue LoadError => e
      refuse("#{server} is not installed: #{e.message}")
    end

    def directory(name)
      File.directory?(name) ? name : refuse("#{name} is no directory")
    end

    def number(text)
      number = Integer(text, 10, exception: false)
      number&.between?(1, 65_535) ? number : refuse("#{text} is no port: 1 to 65535")
    end

    def server(name)
      return Servers.installed || refuse("no server is installed: gem install puma") unless name

      Servers.names.include?(name) ? name : refuse("#{name} is none of #{Servers.names.join(", ")}")
    end

    def refuse(why)
      abort "#{NAME}: #{why}"
    end
  end
end

Serve.call(*ARGV) if $PROGRAM_NAME == __FILE__
