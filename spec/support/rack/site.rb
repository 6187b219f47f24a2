# frozen_string_literal: true

# The folder that the Rack cases ask for, and the app that serves it in every way they need: the first part of the
# path says which. A real server runs the same app by `run RackSite.app`.
require "fileutils"
require "hyperion/http/sendfile/rack"
require "time"
require "tmpdir"

module RackSite
  MODIFIED = Time.utc(2020, 2, 29, 12, 34, 56, 789_012)
  TEXT = "THE LETTERS #{("a".."z").to_a.join} #{("A".."Z").to_a.join} and a line's end\n".freeze
  # Larger than what Files reads at once, and than FileBody's chunks.
  LARGE = Random.new(7).bytes(200_003).freeze
  FORMS = { nil => "not compressed at all\n", ".br" => "as if by brotli\n", ".gz" => "as if by gzip\n" }.freeze
  SECRET = "outside of the root"

  # Arguments of Files.new, after the root.
  VARIANTS = {
    "plain" => [],
    "headers" => [{ "Cache-Control" => "public, max-age=38", "access-control-allow-origin" => "*" }],
    "octets" => [{}, "application/octet-stream"],
    "typeless" => [nil, nil],
    "policies" => [{ "content-security-policy" => "default-src 'self'", "content-disposition" => "inline",
                     "content-security-policy-report-only" => "default-src 'none'", "content-language" => "de",
                     "cross-origin-embedder-policy" => "require-corp", "x-frame-options" => "DENY",
                     "content-location" => "/elsewhere", "expires" => "Thu, 01 Dec 2044 16:00:00 GMT" }]
  }.freeze
  VARIANTS_BY_OPTION = {
    "coded" => { precompressed: true },
    "gzip" => { precompressed: %w[gzip] },
    "tagless" => { etag: false },
    "tag-of-size" => { etag: %i[size] },
    "follow" => { symlinks: :follow },
    "refuse" => { symlinks: :refuse },
    "few" => { max_ranges: 2, max_overlaps: 0 }
  }.freeze

  class << self
    # @return [String] the folder that holds the root and what is beside it
    def dir
      @dir ||= Dir.mktmpdir("hyperion-sendfile-site").tap do |dir|
        owner = Process.pid
        at_exit { FileUtils.rm_rf(dir) if Process.pid == owner }
        build(dir)
      end
    end

    def root
      "#{dir}/root"
    end

    def app(root = self.root)
      files = Hyperion::Http::Sendfile::Files
      variants = VARIANTS.transform_values { |arguments| files.new(root, *arguments) }
      variants.update(VARIANTS_BY_OPTION.transform_values do |options|
        files.new(root, { "vary" => "origin" }, **options)
      end)
      mount = %r{\A/(#{Regexp.union(variants.keys)})(.*)\z}mn
      lambda do |env|
        _, name, rest = mount.match(env["PATH_INFO"]).to_a
        variants.fetch(name).call(env.merge("SCRIPT_NAME" => "/#{name}", "PATH_INFO" => rest))
      end
    end

    private

    def build(dir)
      root = "#{dir}/root"
      FileUtils.mkdir_p(["#{root}/folder/inner", "#{dir}/root-beside"])
      ["#{dir}/secret.txt", "#{dir}/root-beside/secret.txt"].each { |path| File.write(path, SECRET) }
      contents.each { |name, content| File.binwrite("#{root}/#{name}", content) }
      links(root)
      File.mkfifo("#{root}/fifo")
      Dir.glob("#{root}/**/*").each { |path| File.utime(MODIFIED, MODIFIED, path) if File.file?(path) }
    end

    def contents
      names = ["letters", "letters.txt", "page.html", "UPPER.HTML", "folder/inner.txt", "you+me.txt", "a b.txt",
               "100%.txt", "dots..", "..dots", "...", ".hidden", "h\u00E9.txt", "semi;colon", "a%2Fb.txt", "q?.txt"]
      names.to_h { |name| [name, TEXT] }.merge(
        { "empty" => "", "large.bin" => LARGE, "only.txt" => "there is no other form\n" },
        FORMS.to_h { |suffix, content| ["forms.css#{suffix}", content] },
        { "zipped.js" => "no brotli\n", "zipped.js.gz" => "zipped\n", "sealed.css.br" => "brotli alone\n" }
      )
    end

    def links(root)
      File.symlink("letters.txt", "#{root}/to-letters")
      File.symlink("#{root}/folder", "#{root}/to-folder")
      File.symlink("../secret.txt", "#{root}/to-secret")
      File.symlink("#{root}-beside", "#{root}/to-beside")
      File.symlink("loop", "#{root}/loop")
      File.symlink("/dev/zero", "#{root}/to-device")
      File.symlink("../secret.txt", "#{root}/letters.txt.br")
      File.symlink("nowhere", "#{root}/dangling")
    end
  end

  # What came back. Header names in lower case.
  Answer = Struct.new(:status, :headers, :body) do
    def [](name)
      headers[name]
    end

    # @return [Array<Array(Hash, String)>] headers and body of every part of a multipart/byteranges
    def parts
      type = headers.fetch("content-type")
      boundary = type[%r{\Amultipart/byteranges; *boundary=([0-9A-Za-z'()+_,./:=?-]{1,70})\z}, 1]
      pieces = body.b.split("\r\n--#{boundary}", -1)
      raise "the last boundary is not where it should be" unless pieces.last == "--\r\n" && pieces.first.empty?

      pieces[1..-2].map { |piece| part(piece) }
    end

    private

    def part(piece)
      head, content = piece.split("\r\n\r\n", 2)
      [head.split("\r\n").drop(1).to_h { |line| line.split(": ", 2) }, content]
    end
  end
end
