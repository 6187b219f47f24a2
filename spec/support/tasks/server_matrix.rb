# frozen_string_literal: true

# Runs spec/servers/servers_spec.rb against several versions of each server for the Rakefile, each in a bundle of its
# own, and keeps the table of what passed in docs/servers.md. Rows of other Rubies stay.

require "fileutils"
require "json"
require "open3"

class ServerMatrix
  ROOT = File.expand_path("../../..", __dir__)
  TABLE = File.join(ROOT, "docs/servers.md")

  # From the oldest that is promised to the newest that is released. +with+ are the gems that decide beside the server;
  # the oldest of them go with its oldest version.
  Server = Struct.new(:name, :versions, :gems, :with, keyword_init: true)
  SERVERS = [
    Server.new(name: "puma", versions: ["6.0.1", "~> 6.6.0", "~> 7.0", "~> 8.0"], gems: [], with: {}),
    Server.new(name: "falcon", versions: ["0.51.1", "~> 0.55.0", ">= 0.57"], gems: [],
               with: { "async-http" => "0.88.0", "protocol-http1" => "0.34.0" }),
    Server.new(name: "unicorn", versions: ["~> 6.1"], gems: ["logger"], with: {}),
    Server.new(name: "pitchfork", versions: ["~> 0.16.0", "~> 0.17.0", "~> 0.18.0"], gems: [], with: {}),
    Server.new(name: "webrick", versions: ["~> 1.8.0", "~> 1.9"], gems: %w[logger rackup], with: {})
  ].freeze

  # Columns, and the examples that fill them.
  COLUMNS = {
    "direct" => ["takes the direct way exactly where it is open"],
    "kept alive" => ["keeps the connection, and answers on it in the order of the requests"],
    "ranges" => ["sends ranges of them", "sends several ranges"],
    "HEAD" => ["answers HEAD without a body"],
    "stalled reader" => ["gives up a client that does not read, and serves others meanwhile"],
    "truncated file" => ["closes the connection at once when the file is truncated midway"]
  }.freeze
  INDIRECT = %w[webrick].freeze # by what the examples ask of it

  TEXT = <<~MARKDOWN
    # Servers: what was tested

    Written by `rake servers:matrix`; do not edit. A row names the Ruby that ran the specs. "direct": the body writes to the
    socket itself. "kept alive": one connection carries several responses. "stalled reader": a client that reads nothing loses
    its connection at the timeout, and others are served meanwhile. "truncated file": the connection is closed at once if a
    file is truncated while it is sent. "-": does not apply to this server.

  MARKDOWN

  # @param which [String, nil] one server; or "ends": the oldest and the newest version of each, and the table is left
  #   alone
  def initialize(which = nil)
    @ends = which == "ends"
    @servers = which.nil? || @ends ? SERVERS : SERVERS.select { |server| server.name == which }
    raise ArgumentError, "#{which} is none of #{SERVERS.map(&:name).join(", ")}" if @servers.empty?
  end

  def run
    rows = @servers.flat_map { |server| versions(server).filter_map { |version| row(server, version) } }
    write(rows) unless @ends
    failed = rows.reject { |row| row.drop(3).all? { |cell| cell != "NO" } }
    raise "not as promised:\n#{failed.map { |row| line(row) }.join("\n")}" if failed.any?
  end

  private

  def versions(server)
    @ends ? [server.versions.first, server.versions.last].uniq : server.versions
  end

  # nil where this Ruby is too old, or too new, for that version.
  def row(server, version)
    environment = bundle(server, version) or return
    resolved = resolved(environment, server)
    verdicts = examples(environment, server.name)
    cells = COLUMNS.map do |column, names|
      cell(server, column, verdicts.filter_map { |example, verdict| verdict if example.match?(union(names)) })
    end
    [minor, server.name, resolved, *cells].tap { |row| puts line(row) }
  end

  def union(names)
    /#{names.map { |name| Regexp.escape(name) }.join("|")}/
  end

  def cell(server, column, verdicts)
    return "NO" if verdicts.empty? || verdicts.include?("failed")
    return "-" if verdicts.include?("pending") || (column == "direct" && INDIRECT.include?(server.name))

    "yes"
  end

  # The environment of a bundle that has that version, the specs, and no other server.
  def bundle(server, version)
    folder = File.join(ROOT, "tmp/servers", "#{server.name}-#{version.delete("^0-9.")}")
    FileUtils.mkdir_p(folder)
    gems = [[server.name, version], ["rspec", "~> 3.13"], ["rack", "~> 3.0"], ["async", "~> 2.0"],
            *([["io-stream", "~> 0.6.0"]] if RUBY_VERSION < "3.2"), *server.gems.map { |name| [name] },
            *(server.with if version == server.versions.first)]
    gems.map! { |gem| "gem #{gem.map(&:dump).join(", ")}" }
    File.write(File.join(folder, "Gemfile"), ["source \"https://rubygems.org\"", *gems].join("\n"))
    environment = Bundler.unbundled_env.merge("BUNDLE_GEMFILE" => File.join(folder, "Gemfile"))
    output, status = Open3.capture2e(environment, Gem.ruby, "-S", "bundle", "install", unsetenv_others: true)
    return environment if status.success?

    raise output unless output.match?(/current Ruby\s+version|depends on\s+Ruby|requires? ruby version/i)

    puts "#{server.name} #{version}: not for Ruby #{RUBY_VERSION}"
  end

  def resolved(environment, server)
    lock = File.read("#{environment.fetch("BUNDLE_GEMFILE")}.lock")
    version = ->(name) { lock[/^    #{Regexp.escape(name)} \(([^)]+)\)$/, 1] }
    beside = server.with.keys.map { |name| "#{name} #{version.call(name)}" }
    [version.call(server.name), *("(#{beside.join(", ")})" if beside.any?)].join(" ")
  end

  # @return [Hash{String => String}] each example's verdict
  def examples(environment, name)
    group = "files on real servers #{name} behaves like files over connections"
    selected = COLUMNS.values.flatten.flat_map { |text| ["-e", "#{group} #{text}"] }
    command = [Gem.ruby, "-S", "bundle", "exec", "rspec", "--require", "spec_helper", "--format", "json",
               "spec/servers/servers_spec.rb", *selected]
    output, = Open3.capture2(environment, *command, chdir: ROOT, unsetenv_others: true)
    result = JSON.parse(output[/^\{.*\}$/m] || raise("rspec says nothing of #{name}: #{output}"))
    result.fetch("examples").each do |example|
      puts example["full_description"], example.dig("exception", "message") if example["status"] == "failed"
    end
    result.fetch("examples").to_h { |example| example.values_at("full_description", "status") }
  end

  def minor
    RUBY_VERSION[/\A\d+\.\d+/]
  end

  def line(row)
    "| #{row.join(" | ")} |"
  end

  # By Ruby, and by the server as they are listed above.
  def order(line)
    ruby, server = line.scan(/[^| ]+/)
    [Gem::Version.new(ruby), SERVERS.index { |each| each.name == server } || SERVERS.size]
  end

  def write(rows)
    head = ["Ruby", "server", "version", *COLUMNS.keys]
    again = /\A\| #{minor} \| (?:#{@servers.map(&:name).join("|")}) /
    kept = File.exist?(TABLE) ? File.readlines(TABLE, chomp: true).grep(/\A\| \d/).grep_v(again) : []
    lines = [*kept, *rows.map { |row| line(row) }]
    lines = lines.sort_by.with_index { |each, index| [*order(each), index] }
    FileUtils.mkdir_p(File.dirname(TABLE))
    File.write(TABLE, "#{TEXT}#{[line(head), "|#{" --- |" * head.size}", *lines].join("\n")}\n")
  end
end
