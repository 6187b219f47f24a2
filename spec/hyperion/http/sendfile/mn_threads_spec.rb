# frozen_string_literal: true

# With M:N threads (RUBY_MN_THREADS=1) a thread goes on by another native thread after it gave the GVL up, and what it
# left on the first one would be somebody else's.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "with M:N threads", needs: %i[extension linux] do
  # Those that Ruby starts meanwhile inherit the mask.
  it "leaves SIGPIPE held on no native thread that was there before" do
    script = <<~RUBY
      require "hyperion/http/sendfile"
      native = Hyperion::Http::Sendfile.const_get(:Native)
      trap("PIPE") {}
      Array.new(40) { Thread.new { 20.times { sleep 0.001 } } }.each(&:join)
      before = Dir["/proc/self/task/*"]
      threads = Array.new(40) { Thread.new { 20.times { native.without_sigpipe { 3.times { sleep 0.001 } } } } }
      threads.each(&:join)
      held = (before & Dir["/proc/self/task/*"]).count { |path| File.read("\#{path}/status")[/SigBlk:\\s*(\\h+)/, 1].to_i(16)[12] == 1 }
      puts held
    RUBY
    ruby = [RbConfig.ruby, "-W0", *$LOAD_PATH.flat_map { |path| ["-I", path] }]
    expect(IO.popen([{ "RUBY_MN_THREADS" => "1" }, *ruby, "-e", script], &:read)).to eq("0\n")
  end
end
