# frozen_string_literal: true

# Proves the packaged gem for the Rakefile: built, installed where nothing else is, and used from there; by this Ruby,
# by this Ruby where nothing can be compiled, and by JRuby. The last step is this same file, run by a Ruby that sees
# neither the checkout nor a bundle.

module PackagedGem
  USER_FILES = %r{\A(?:lib/.+\.rb|exe/[^/]+|ext/hyperion_sendfile/.+\.[ch]|ext/hyperion_sendfile/extconf\.rb|
                      sig/.+\.(?:rbs|yaml)|LICENSE|(?:README|CHANGELOG|SECURITY)\.md|docs/.+\.md|examples/.+|
                      bench/README\.md|bench/results/[^/]+\.(?:md|svg))\z}x
  BUILD_PRODUCTS = %r{(?:\A|/)(?:extconf\.h|conftest.*)\z}
  GEM_COMMAND = ["-rrubygems/gem_runner", "-e", "Gem::GemRunner.new.run(ARGV.dup)"].freeze
  PAYLOAD_LENGTH = (8 << 20) + 3

  # +ruby+ is a command, +environment+ what is peculiar to it, +extension+ whether it is to have built that.
  Way = Struct.new(:name, :ruby, :environment, :extension)

  module_function

  def check(gemspec)
    require "tmpdir"
    Dir.mktmpdir("packaged-gem") do |directory|
      package = File.join(directory, "built.gem")
      build(gemspec, package)
      check_contents(package)
      ways(directory).each { |way| install_and_use(way, File.join(directory, way.name), package) }
    end
  end

  def ways(directory)
    compiling = Way.new("with a compiler", [Gem.ruby], {}, true)
    plain = Way.new("without a compiler", [Gem.ruby], { "PATH" => tools(directory, %w[make sh rm]) }, false)
    bare = Way.new("without make", [Gem.ruby], { "PATH" => tools(directory, %w[true]), "MAKE" => "true" }, false)
    [compiling, plain, bare, *jruby]
  end

  def jruby
    require_relative "without_extension"
    [Way.new("by JRuby", ["java", "-cp", WithoutExtension.jruby_jars.join(":"), "org.jruby.Main"], {}, false)]
  rescue WithoutExtension::Unavailable => e
    puts "*" * 78, "SKIPPED, NOT PASSED: the gem by JRuby: #{e.message}", "*" * 78
    []
  end

  # A folder that has these commands and no others.
  def tools(directory, names)
    require "fileutils"
    folder = FileUtils.mkdir_p(File.join(directory, "tools", names.join("-"))).first
    names.each do |name|
      paths = ENV.fetch("PATH").split(":").map { |path| File.join(path, name) }
      File.symlink(paths.find { |path| File.executable?(path) } || raise("no command #{name}"), File.join(folder, name))
    end
    folder
  end

  def install_and_use(way, home, package)
    puts "#{way.name}:"
    run(way, home, *GEM_COMMAND, "install", "--local", "--no-document", package)
    run(way, home, "-w", File.expand_path(__FILE__), way.extension.to_s, chdir: home)
  end

  # As it is published: with an address, since RubyGems warns where there is none.
  def build(gemspec, package)
    require "open3"
    environment = { "HYPERION_SENDFILE_REPOSITORY" => "https://repository.example/hyperion-sendfile" }
    output, status = Open3.capture2e(environment, Gem.ruby, *GEM_COMMAND, "build", gemspec, "--output", package)
    raise "gem build failed:\n#{output}" unless status.success?
    raise "gem build warns:\n#{output}" if output.include?("WARNING")
  end

  def check_contents(package)
    require "rubygems/package"
    package = Gem::Package.new(package)
    contents = package.contents
    strays = contents.reject { |path| path.match?(USER_FILES) && !path.match?(BUILD_PRODUCTS) }
    raise "packed, but of no use to a user: #{strays.join(", ")}" unless strays.empty?

    missing = %w[LICENSE README.md CHANGELOG.md SECURITY.md ext/hyperion_sendfile/extconf.rb] - contents
    raise "not packed: #{missing.join(", ")}" unless missing.empty?

    addresses = %w[source_code_uri changelog_uri bug_tracker_uri documentation_uri] - package.spec.metadata.keys
    raise "without #{addresses.join(", ")}" unless addresses.empty?

    check_links(package)
    puts "packed: #{contents.length} files"
  end

  # A file or folder that one of the packed documents links to is packed, too.
  def check_links(package)
    require "tmpdir"
    Dir.mktmpdir("unpacked") do |folder|
      package.extract_files(folder)
      broken = Dir.glob("**/*.md", base: folder).flat_map do |document|
        targets = File.read(File.join(folder, document)).scan(/\]\(([^)\s#]+)[^)]*\)/).flatten
        relative = targets.grep_v(/\A[a-z]+:/)
        relative.reject { |target| File.exist?(File.expand_path(target, File.join(folder, File.dirname(document)))) }
                .map { |target| "#{document} to #{target}" }
      end
      raise "links to what is not packed: #{broken.join(", ")}" unless broken.empty?
    end
  end

  def run(way, home, *arguments, **options)
    environment = ENV.slice("PATH", "HOME", "LANG", "TMPDIR").merge("GEM_HOME" => home, "GEM_PATH" => home)
    system(environment.merge(way.environment), *way.ruby, *arguments, unsetenv_others: true, in: File::NULL,
                                                                      exception: true, **options)
  end

  # By the Ruby that has installed it.
  def use(extension)
    require "hyperion-sendfile"
    require "tempfile"
    abort "loaded from outside GEM_HOME" unless loaded_from_gem_home?(extension)
    abort "supported? is #{!extension}" unless Hyperion::Http::Sendfile.supported? == extension

    payload = Random.bytes(PAYLOAD_LENGTH)
    received = Tempfile.create("payload", binmode: true) do |file|
      file.write(payload)
      file.flush
      through_tcp { |socket| Hyperion::Http::Sendfile.copy_to_socket(socket, file, 0, payload.bytesize) }
    end
    abort "received #{received.bytesize} bytes, not the #{payload.bytesize} sent" unless received == payload
    puts "installed and used, #{"not " unless extension}supported: #{received.bytesize} bytes over TCP, exact"
  end

  def loaded_from_gem_home?(extension)
    loaded = $LOADED_FEATURES.grep(%r{hyperion[/-]|hyperion_sendfile\.})
    home = File.realpath(ENV.fetch("GEM_HOME"))
    loaded.any? { |path| path.include?("hyperion_sendfile.") } == extension &&
      loaded.all? { |path| File.realpath(path).start_with?(home) }
  end

  def through_tcp
    require "socket"
    server = TCPServer.new("127.0.0.1", 0)
    client = TCPSocket.new("127.0.0.1", server.addr[1])
    reader = Thread.new { client.read }
    connection = server.accept
    yield connection
    connection.close
    reader.value
  ensure
    [server, client, connection].compact.each(&:close)
  end
end

PackagedGem.use(ARGV.first == "true") if $PROGRAM_NAME == __FILE__
