# frozen_string_literal: true

# Runs specs by two processes at a time, for the Rakefile: most of what they do is to wait.

require "rake"

module ParallelSpecs
  extend Rake::FileUtilsExt

  PROCESSES = 2

  module_function

  # Those of the files and folders, but for the folders +apart+; +options+ are rspec's.
  def run(options, *paths, apart: [], environment: {})
    exclude = apart.empty? ? [] : ["--exclude-pattern", "spec/(#{apart.join("|")})/"]
    sh(environment, Gem.ruby, Gem.bin_path("parallel_tests", "parallel_rspec"), "--quiet", "-n", PROCESSES.to_s,
       "--group-by", "filesize", *exclude, "--test-options", "--require spec_helper #{options}", "--", *paths,
       verbose: false)
  end
end
