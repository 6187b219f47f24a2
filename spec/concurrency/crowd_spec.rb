# frozen_string_literal: true

# Two thousand connections at once, each with a pipe for splice: more pipes than the kernel lets an ordinary user have
# at their full size.

require "spec_helper"
require "etc"

RSpec.describe Hyperion::Http::Sendfile, "serving a crowd by splice", needs: :schedulers do
  crowd = 2_000
  size = 100_003

  # Forked, because it gives up the rights of root, for whom the limit does not count.
  def as_nobody
    file = payload_file(100_003)
    Faults.in_child(limit: 25) do
      Process.setrlimit(:NOFILE, Process.getrlimit(:NOFILE).last)
      Process::UID.change_privilege(Etc.getpwnam("nobody").uid) if Process.uid.zero?
      yield file
    end
  end

  # Every connection at first takes nothing, so that all pipes are open at once.
  def serve(crowd, size, file)
    ENV["HYPERION_HTTP_SPLICE"] = "1"
    said = []
    pairs = Array.new(crowd) { UNIXSocket.pair }
    pairs.map(&:first).each { |out| out.setsockopt(:SOCKET, :SNDBUF, 4_096) }
    Sync do |task|
      senders = pairs.map do |out, _|
        task.async do
          said << S.copy_to_socket(out, file, 0, size)
          out.close
        end
      end
      pipes = Fds.open.count { |_, target| target.start_with?("pipe:") } / 2
      readers = pairs.map { |_, peer| task.async { peer.read == payload(size) } }
      senders.each(&:wait)
      [pipes, readers.count(&:wait), said.tally]
    end
  end

  it "sends every byte on each" do
    skip "needs 3 descriptors a connection" if Process.getrlimit(:NOFILE).last < crowd * 5
    soft_limit = Integer(File.read("/proc/sys/fs/pipe-user-pages-soft"))
    pipes, right, said = as_nobody { |file| serve(crowd, size, file) }
    expect(pipes).to be >= crowd
    expect(pipes * 64).to be > soft_limit # pages, at 256 KiB each
    expect(said).to eq(size => crowd)
    expect(right).to eq(crowd)
  end
end
