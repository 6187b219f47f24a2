# frozen_string_literal: true

# The stream of a connection on async-http: whose regions go out by whom.
require "spec_helper"
require "async"
require "hyperion/http/sendfile/falcon"

RSpec.describe "the stream of a connection on async-http" do
  streams = S.const_get(:AsyncHTTP)::Stream

  # What is written as regions is written by a task that is shielded for it, and that hears of its failure.
  it "has regions sent by nobody but whom they were given by" do
    ours, theirs = UNIXSocket.pair.each { |io| Cleanup.close(io) }
    stream = streams.wrap(ours)
    told = {}
    Sync do |task|
      begin
        loop { ours.write_nonblock("x" * 65_536) }
      rescue IO::WaitWritable
        nil # it is full
      end
      stream.write("first")
      regions = Object.new
      regions.define_singleton_method(:copy_to) do |_io, head: nil|
        told[:by] = Async::Task.current
        told[:head] = head
        raise S::TruncatedError.new(0, 1, torn: false)
      end
      first = task.async { stream.flush }
      behind = task.async { stream.flush } # somebody who has written, and waits
      sending = task.async do
        stream.flush_with(regions)
      rescue S::TruncatedError => e
        told[:error] = e
      end
      drain = task.async { theirs.readpartial(65_536) until told[:by] }
      expect { [first, behind, sending].each(&:wait) }.not_to raise_error
      drain.stop
      expect(told).to include(by: sending, error: S::TruncatedError)
      expect(told[:head].to_s).to eq("")
    end
  end
end
