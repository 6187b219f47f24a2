# frozen_string_literal: true

require "rbconfig"
require "tmpdir"

# Compiles ../c_loop.c with the compiler of this Ruby, into a folder that is gone once it is loaded: Bench.c_loop.
Dir.mktmpdir("bench-c-loop") do |dir|
  config = RbConfig::CONFIG
  library = File.join(dir, "c_loop.#{config["DLEXT"]}")
  command = [*config["CC"].split, "-O2", "-Wall", "-shared", "-fPIC",
             "-I#{config["rubyhdrdir"]}", "-I#{config["rubyarchhdrdir"]}", "-o", library,
             File.expand_path("../c_loop.c", __dir__)]
  system(*command) or abort "bench: could not compile the C loop: #{command.join(" ")}"
  require library
end
