# frozen_string_literal: true

# Checks the signatures in sig/ for the Rakefile, from every side: Steep over what README shows a user to write, each
# declaration against what the library defines, and calls by RBS's run-time test against what it takes and returns.

require "fileutils"
require "rake"

module Types
  extend Rake::FileUtilsExt

  ROOT = File.expand_path("../../..", __dir__)
  SNIPPETS = File.join(ROOT, "tmp/types/readme")
  RUN_TIME_TEST = { "RBS_TEST_TARGET" => "Hyperion::Http::Sendfile,Hyperion::Http::Sendfile::*",
                    "RBS_TEST_OPT" => "-I sig -r socket -r openssl", "RBS_TEST_RAISE" => "true",
                    "RBS_TEST_LOGLEVEL" => "error" }.freeze

  module_function

  def check
    extract
    Dir.chdir(ROOT) do
      sh "steep", "check", "--severity-level=information", verbose: false
      ruby "-Ilib", "spec/support/tasks/types/declarations.rb", verbose: false
      sh RUN_TIME_TEST, Gem.ruby, "-Ilib", "-rrbs/test/setup", "spec/support/tasks/types/calls.rb", verbose: false
    end
  end

  # Each of README's blocks of Ruby as a file, with its lines where they are in README.
  def extract
    FileUtils.rm_rf(SNIPPETS)
    FileUtils.mkdir_p(SNIPPETS)
    text = File.read(File.join(ROOT, "README.md"))
    text.scan(/^```ruby\n(.*?)^```$/m) do |(ruby)|
      lines = Regexp.last_match.pre_match.count("\n") + 1
      File.write(File.join(SNIPPETS, format("line_%04d.rb", lines + 1)), ("\n" * lines) + ruby)
    end
  end
end
