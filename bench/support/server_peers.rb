# frozen_string_literal: true

require "etc"
require "rbconfig"
require_relative "web_server"

module Bench
  # The servers that take part in servers.rb: how each is started on a port for a directory, one process that serves.
  # A peer answers [environment, command…]; NotStarted says why it can't take part here.
  module ServerPeers
    HERE = File.expand_path("../servers", __dir__)
    ROOT = File.expand_path("../..", __dir__)
    RACKUP = File.join(HERE, "config.ru")
    RUBY = [RbConfig.ruby, "-I#{File.join(ROOT, "lib")}"].freeze
    # Not in the Gemfile: where there is no binary gem, it needs Rust and minutes.
    ITSI = { version: "0.2.27", dir: File.join(ROOT, "tmp/bench-gems") }.freeze
    private_constant :HERE, :ROOT, :RACKUP, :RUBY, :ITSI

    module_function

    def example(dir, port)
      [{}, *RUBY, File.join(ROOT, "examples/server.rb"), dir, port.to_s]
    end

    # In its own default, which is up to five threads.
    def puma(dir, port, app)
      [environment(dir, port, app), *RUBY, Gem.bin_path("puma", "puma"), "-b", "tcp://127.0.0.1:#{port}", RACKUP]
    end

    def falcon(dir, port, app, protocol)
      [environment(dir, port, app).merge("BENCH_PROTOCOL" => protocol),
       *RUBY, Gem.bin_path("falcon", "falcon-host"), File.join(HERE, "falcon.rb")]
    end

    # By its own gems, installed when it is first asked for, unless there is no time.
    def itsi(dir, port, app, install:)
      home = ITSI.fetch(:dir)
      command = File.join(home, "bin/itsi")
      unless File.exist?(command)
        raise WebServer::NotStarted, "not installed yet; `rake bench` tries to" unless install

        install_itsi(home)
      end
      [without_bundler.merge(environment(dir, port, app), "GEM_HOME" => home, "GEM_PATH" => home),
       RbConfig.ruby, command, "-w", "1", "-t", "1", "-b", "http://127.0.0.1:#{port}", "-r", RACKUP]
    end

    # With a worker, as in production, that keeps its connections for longer than a run lasts.
    def nginx(dir, port)
      path = File.join(dir, "..", "nginx.conf")
      File.write(path, nginx_configuration(dir, port))
      [{ "PATH" => "#{ENV.fetch("PATH", "")}:/usr/sbin" }, "nginx", "-p", File.dirname(path), "-c",
       File.expand_path(path), "-e", "stderr"]
    end

    def environment(dir, port, app)
      { "BENCH_ROOT" => dir, "BENCH_PORT" => port.to_s, "BENCH_APP" => app, "RACK_ENV" => "production",
        "CONSOLE_LEVEL" => "error" }
    end
    private_class_method :environment

    def install_itsi(home)
      gems = { "itsi-server" => ITSI.fetch(:version), "rack" => Gem.loaded_specs.fetch("rack").version.to_s }
      gems.each do |name, version|
        done = system(without_bundler, RbConfig.ruby, "-S", "gem", "install", name, "--version", version,
                      "--no-document", "--install-dir", home, out: File::NULL, err: File::NULL)
        raise WebServer::NotStarted, "`gem install #{name}` failed" unless done
      end
    end
    private_class_method :install_itsi

    def without_bundler
      ENV.keys.grep(/\A(?:BUNDLE|RUBY(?:OPT|LIB))/).to_h { |name| [name, nil] }
    end
    private_class_method :without_bundler

    def nginx_configuration(dir, port)
      <<~NGINX
        daemon off;
        worker_processes 1;
        user #{Etc.getpwuid.name} #{Etc.getgrgid(Process.gid).name};
        pid nginx.pid;
        events { worker_connections 64; }
        http {
          #{%w[client_body proxy fastcgi uwsgi scgi].map { |name| "#{name}_temp_path #{name};" }.join(" ")}
          access_log off;
          sendfile on;
          tcp_nopush on;
          keepalive_requests 1000000000;
          server { listen 127.0.0.1:#{port}; root #{dir}; }
        }
      NGINX
    end
    private_class_method :nginx_configuration
  end
end
