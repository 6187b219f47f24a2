# frozen_string_literal: true

# Proves the packaged gem for the Rakefile: built, installed where nothing else is, and used from there. The last step
# is this same file, run by a Ruby that sees neither the checkout nor a bundle.

module PackagedGem
  USER_FILES = %r{\A(?:lib/.+\.rb|ext/hyperion_sendfile/[^/]+\.[ch]|ext/hyperion_sendfile/extconf\.rb|sig/.+\.rbs|
                      LICENSE|(?:README|CHANGELOG|SECURITY)\.md)\z}x
  BUILD_PRODUCTS = %r{(?:\A|/)(?:extconf\.h|conftest.*)\z}
  GEM_COMMAND = ["-rrubygems/gem_runner", "-e", "Gem::GemRunner.new.run(ARGV.dup)"].freeze
  PAYLOAD_LENGTH = (8 << 20) + 3

  module_function

  def check(gemspec)
    require "tmpdir"
    Dir.mktmpdir("packaged-gem") do |directory|
      package = File.join(directory, "built.gem")
      home = File.join(directory, "home")
      isolated_ruby(home, *GEM_COMMAND, "build", gemspec, "--output", package)
      check_contents(package)
      isolated_ruby(home, *GEM_COMMAND, "install", "--local", "--no-document", package)
      isolated_ruby(home, "-w", File.expand_path(__FILE__), chdir: directory)
    end
  end

  def check_contents(package)
    require "rubygems/package"
    contents = Gem::Package.new(package).contents
    strays = contents.reject { |path| path.match?(USER_FILES) && !path.match?(BUILD_PRODUCTS) }
    raise "packed, but of no use to a user: #{strays.join(", ")}" unless strays.empty?

    missing = %w[LICENSE README.md CHANGELOG.md SECURITY.md ext/hyperion_sendfile/extconf.rb] - contents
    raise "not packed: #{missing.join(", ")}" unless missing.empty?

    puts "packed: #{contents.length} files"
  end

  def isolated_ruby(home, *arguments, **options)
    environment = ENV.slice("PATH", "HOME", "LANG", "TMPDIR").merge("GEM_HOME" => home, "GEM_PATH" => home)
    system(environment, Gem.ruby, *arguments, unsetenv_others: true, in: File::NULL, exception: true, **options)
  end

  def use
    require "hyperion-sendfile"
    require "tempfile"
    abort "loaded from outside GEM_HOME" unless loaded_from_gem_home?
    abort "supported? is false" unless Hyperion::Http::Sendfile.supported?

    payload = Random.bytes(PAYLOAD_LENGTH)
    received = Tempfile.create("payload", binmode: true) do |file|
      file.write(payload)
      file.flush
      through_tcp { |socket| Hyperion::Http::Sendfile.copy_to_socket(socket, file, 0, payload.bytesize) }
    end
    abort "received #{received.bytesize} bytes, not the #{payload.bytesize} sent" unless received == payload
    puts "installed and used: #{received.bytesize} bytes over TCP, exact"
  end

  def loaded_from_gem_home?
    loaded = $LOADED_FEATURES.grep(%r{hyperion[/-]|hyperion_sendfile\.})
    home = File.realpath(ENV.fetch("GEM_HOME"))
    loaded.any? { |path| path.include?("hyperion_sendfile.") } &&
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

PackagedGem.use if $PROGRAM_NAME == __FILE__
