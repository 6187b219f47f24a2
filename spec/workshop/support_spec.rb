# frozen_string_literal: true

# What the specs themselves promise.
require "open3"
require "timeout"

RSpec.describe "the specs' support code" do
  it "leaves no temporary file, those of killed children included" do
    script = <<~RUBY
      require "spec_helper"
      require "tempfile"
      leave = -> { Payload.path(10) && Tempfile.new && Dir.mktmpdir }
      Faults.in_child { leave.call && 1 }
      Process.wait(fork { leave.call && Process.kill(:KILL, Process.pid) })
      leave.call
    RUBY
    Dir.mktmpdir do |folder|
      environment = { "TMPDIR" => folder, TemporaryFiles::MADE => nil }
      ruby = [Gem.ruby, *$LOAD_PATH.flat_map { |path| ["-I", path] }]
      output, status = Open3.capture2e(environment, *ruby, "-e", script)
      expect([output, status]).to match(["", be_success])
      expect(Dir.children(folder)).to eq([])
    end
  end

  it "takes no answer for that of another request, once the wait for it was ended", needs: :linux do
    Faults.run(:instance_eval, "1") # the process is there
    expect { Timeout.timeout(0.5) { Faults.run(:instance_eval, "sleep 1; :late") } }.to raise_error(Timeout::Error)
    expect(Faults.run(:instance_eval, ":prompt")).to eq(:prompt)
  end
end
