# frozen_string_literal: true

# Starts any of five servers from Ruby: in the foreground, until SIGINT or SIGTERM. The files beside this one show how
# each server is configured in its own way.
require "socket"

# See above.
module Servers
  HOST = "127.0.0.1"

  class << self
    # @return [Array<String>] the servers that {run} knows
    def names
      %w[puma falcon unicorn pitchfork webrick]
    end

    # @return [String, nil] the first of them whose gem is installed
    def installed
      names.find { |name| Gem.loaded_specs.key?(name) || Gem::Specification.find_all_by_name(name).any? }
    end

    # @param name [String] of the server
    # @param app [#call] a Rack app
    # @param port [Integer] to listen on, on 127.0.0.1
    # @param workers [Integer] threads of Puma, processes of unicorn and pitchfork
    # @yield once it listens
    # @raise [SystemCallError] the server cannot listen on that port
    def run(name, app, port:, workers: 4, &listening)
      raise ArgumentError, "no server is called #{name}: there are #{names.join(", ")}" unless names.include?(name)

      # Checked first, because unicorn retries for seconds, and logs each attempt.
      TCPServer.open(HOST, port).close
      send(name, app, port, workers, &listening)
    end

    private

    def puma(app, port, workers, &listening)
      require "puma"
      require "puma/configuration"
      require "puma/launcher"
      configuration = Puma::Configuration.new do |config|
        config.app(app)
        config.bind("tcp://#{HOST}:#{port}")
        config.threads(workers, workers)
        config.raise_exception_on_sigterm(false)
      end
      launcher = Puma::Launcher.new(configuration, log_writer: Puma::LogWriter.new(File.open(File::NULL, "w"), $stderr))
      booted = launcher.events.respond_to?(:after_booted) ? :after_booted : :on_booted # the name up to Puma 6
      launcher.events.public_send(booted) do
        # Puma's own traps write to a pipe, and Ruby 3.4 may then never close that pipe.
        %w[INT TERM].each { |signal| trap(signal) { Thread.new { launcher.stop } } }
        listening&.call
      end
      launcher.run
    end

    def falcon(app, port, _workers)
      require "falcon"
      require "falcon/server"
      require "async/http/endpoint"
      require "protocol/rack"
      require "hyperion/http/sendfile/falcon"
      trap("TERM") { Thread.main.raise(Interrupt) }
      endpoint = Async::HTTP::Endpoint.parse("http://#{HOST}:#{port}", protocol: Hyperion::Http::Sendfile::Falcon)
      # The bare adapter, as in rackup: Falcon::Server.middleware would compress text but keep its etag.
      Sync do
        bound = endpoint.bound
        yield if block_given?
        Falcon::Server.new(Protocol::Rack::Adapter.new(app), bound, protocol: endpoint.protocol,
                                                                    scheme: endpoint.scheme).run.wait
      end
    rescue Interrupt
      nil
    end

    def unicorn(app, port, workers)
      require "unicorn"
      server = Unicorn::HttpServer.new(app, listeners: ["#{HOST}:#{port}"], worker_processes: workers, logger: quiet)
      server.start
      yield if block_given?
      server.join
    end

    def pitchfork(app, port, workers)
      require "pitchfork"
      server = Pitchfork::HttpServer.new(app, listeners: ["#{HOST}:#{port}"], worker_processes: workers, logger: quiet)
      server.start(false)
      yield if block_given?
      server.join
    end

    def webrick(app, port, _workers, &listening)
      require "rackup/handler/webrick"
      options = { Host: HOST, Port: port, Logger: quiet, AccessLog: [], StartCallback: listening }
      Rackup::Handler::WEBrick.run(app, **options) do |server|
        %w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
      end
    end

    def quiet
      require "logger"
      Logger.new($stderr, level: Logger::ERROR)
    end
  end
end
