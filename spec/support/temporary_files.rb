# frozen_string_literal: true

require "fileutils"
require "tmpdir"

# One folder for all temporary files of a suite and of the processes that it starts: a child that is killed, or that
# leaves by exit!, removes none of its own. The process that made the folder removes it.
module TemporaryFiles
  MADE = "HYPERION_SPEC_TMPDIR"

  def self.gather
    return if ENV.key?(MADE)

    folder = Dir.mktmpdir("hs") # short, for the paths of Unix sockets
    File.chmod(0o711, folder) # for what examples do as another user
    owner = Process.pid
    at_exit { FileUtils.rm_rf(folder) if Process.pid == owner }
    ENV["TMPDIR"] = ENV[MADE] = folder
  end
end

TemporaryFiles.gather
