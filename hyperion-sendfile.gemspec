# frozen_string_literal: true

require_relative "lib/hyperion/http/sendfile/version"

Gem::Specification.new do |spec|
  spec.name = "hyperion-sendfile"
  spec.version = Hyperion::Http::Sendfile::VERSION
  spec.authors = ["The hyperion-sendfile maintainers"]
  spec.license = "MIT"

  spec.summary = "Exact bytes from a file to a socket, by the cheapest safe route"
  spec.description = <<~TEXT.tr("\n", " ").strip
    copy_to_socket(out, file, offset, length) puts exactly those bytes on that connection with sendfile, splice,
    or a userspace loop, or raises and says how far it got. It waits through the fiber scheduler where
    there is one, and otherwise without the GVL.
  TEXT

  # The repository's address: whoever publishes the gem sets it, and every other address follows from it.
  # Without it they are all left out, and `gem build` warns that there is no homepage.
  repository = ENV.fetch("HYPERION_SENDFILE_REPOSITORY", nil) # https://github.com/OWNER/hyperion-sendfile
  if repository
    spec.homepage = repository
    spec.metadata.update(
      "source_code_uri" => "#{repository}/tree/v#{spec.version}",
      "changelog_uri" => "#{repository}/blob/v#{spec.version}/CHANGELOG.md",
      "bug_tracker_uri" => "#{repository}/issues",
      "documentation_uri" => "https://rubydoc.info/gems/#{spec.name}/#{spec.version}"
    )
  end

  spec.required_ruby_version = ">= 3.1"
  spec.metadata["rubygems_mfa_required"] = "true"

  # Named by pattern rather than by git, so that an unpacked tarball builds the same gem; a build inside ext/ leaves
  # nothing that matches but extconf.h.
  # What the documents link to is among them.
  spec.files = Dir.glob(
    ["lib/**/*.rb", "exe/*", "ext/**/*.{c,h,rb}", "sig/**/*.{rbs,yaml}", "LICENSE", "{README,CHANGELOG,SECURITY}.md",
     "docs/**/*.md", "examples/**/*", "bench/README.md", "bench/results/*.{md,svg}"], base: __dir__
  ).select { |path| File.file?(File.join(__dir__, path)) && File.basename(path) != "extconf.h" }
  spec.bindir = "exe"
  spec.executables = ["hyperion-sendfile"]
  spec.require_paths = ["lib"]
  spec.extensions = ["ext/hyperion_sendfile/extconf.rb"]
  spec.extra_rdoc_files = ["README.md", "CHANGELOG.md"] & spec.files
end
