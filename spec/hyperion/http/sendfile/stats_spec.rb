# frozen_string_literal: true

# The counters.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, ".stats", needs: :sendfile do
  # What the block added to each counter that it changed.
  def counted
    before = S.stats
    yield
    S.stats.to_h { |name, now| [name, difference(now, before.fetch(name))] }
     .reject { |_, change| [0, {}].include?(change) }
  end

  def difference(now, before)
    return now - before unless now.is_a?(Hash)

    now.to_h { |route, count| [route, count - before.fetch(route)] }.reject { |_, change| change.zero? }
  end

  def deliver(kind, size, waiter: :thread, **options)
    channel = channel(kind)
    reader = channel.read
    copy_under(waiter, channel.out, payload_file(size), 0, size, **options)
    channel.finish
    reader.result
  end

  around do |example|
    saved = ENV.delete("HYPERION_HTTP_SPLICE")
    example.run
  ensure
    ENV["HYPERION_HTTP_SPLICE"] = saved
  end

  it "has all counters from the start, as Integers" do
    routes = %i[small sendfile splice memory ktls tls_userspace userspace frames]
    expect(S.stats.keys).to eq(%i[responses bytes waits fallbacks timeouts truncations])
    expect(S.stats[:responses].keys).to eq(routes)
    expect(S.stats[:bytes].keys).to eq(routes)
    expect(S.stats.values.flat_map { |value| value.is_a?(Hash) ? value.values : value }).to all(be_an(Integer))
  end

  Waiters::ALL.each do |waiter|
    it "counts a response and its bytes by the route it took (#{waiter})", needs: :splice do
      expect(counted { deliver(:tcp, 5_000, waiter: waiter, head: "head") })
        .to eq(responses: { small: 1 }, bytes: { small: 5_000 })
      expect(counted { deliver(:tls13, 5_000, waiter: waiter) }.except(:waits))
        .to eq(responses: { tls_userspace: 1 }, bytes: { tls_userspace: 5_000 })
      expect(counted { deliver(:writer, 5_000, waiter: waiter) })
        .to eq(responses: { userspace: 1 }, bytes: { userspace: 5_000 })
      expect(counted { deliver(:tcp, 500_000, waiter: waiter) }.except(:waits))
        .to eq(responses: { sendfile: 1 }, bytes: { sendfile: 500_000 })

      ENV["HYPERION_HTTP_SPLICE"] = "1"
      expect(counted { deliver(:tcp, 500_000, waiter: waiter) }.except(:waits))
        .to eq(responses: { splice: 1 }, bytes: { splice: 500_000 })
    end
  end

  it "counts a response whose length only its source knows" do
    expect(counted { S.copy_to_socket(StringIO.new, StringIO.new("five!")) })
      .to eq(responses: { userspace: 1 }, bytes: { userspace: 5 })
  end

  it "counts no response that the caller's block has left" do
    expect(counted { S.copy_to_socket(StringIO.new, StringIO.new("five!")) { break } }).to eq(bytes: { userspace: 5 })
  end

  it "counts a small response that is reported on like one that is not" do
    channel = channel(:tcp)
    expect(counted { S.copy_to_socket(channel.out, payload_file(5_000), 0, 5_000) { |sent| sent } })
      .to eq(responses: { small: 1 }, bytes: { small: 5_000 })
  end

  it "counts a change of route, and the response where it ended", needs: :linux do
    refusal = Faults::Rule.new(:fail, Errno::EINVAL::Errno, 0, Faults::ALWAYS)
    changed = Faults.run(:counted, size: 500_000, faults: { sendfile: refusal })
    expect(changed).to include(responses: include(memory: 1), bytes: include(memory: 500_000), fallbacks: 1)
  end

  it "counts a truncated response by its error and the bytes that went out" do
    channel = channel(:tcp)
    changed = counted do
      expect { S.copy_to_socket(channel.out, payload_file(1_000), 0, 100_000) }.to raise_error(S::TruncatedError)
    end
    expect(changed).to eq(bytes: { sendfile: 1_000 }, truncations: 1)
  end

  %i[thread fiber_async].each do |waiter|
    it "counts waits, and a timeout, with the bytes that went out (#{waiter})" do
      channel = channel(:tcp, small: true)
      sent = 0
      changed = counted do
        sender = start_copy(waiter, channel.out, payload_file(5_000_000), 0, 5_000_000, timeout: 0.3) do |total|
          sent = total
        end
        expect(sender.error).to be_a(S::TimeoutError)
      end
      expect(changed).to include(timeouts: 1, bytes: { Waiters.by_kernel?(waiter) ? :sendfile : :userspace => sent })
      expect(changed[:waits]).to be_positive
      expect(changed).not_to include(:responses)
    end
  end

  it "counts what was sent in one go until a timeout, or until its thread was killed" do
    { timeout: :error.to_proc, kill: ->(sender) { sender.thread.kill.join } }.each do |why, finish|
      channel = channel(:tcp, small: true)
      reader = channel.read(:stalled)
      changed = counted do
        sender = start_copy(:thread, channel.out, payload_file(5_000_000), 0, 5_000_000,
                            timeout: why == :timeout ? 0.3 : nil)
        await_backpressure(channel, sender)
        finish.call(sender)
      end
      channel.finish
      sent = reader.go.wait.bytes
      expect(changed).to include(bytes: { sendfile: sent }), why.to_s
      expect(changed.slice(:timeouts, :responses)).to eq(why == :timeout ? { timeouts: 1 } : {})
    end
  end

  it "counts one response for DATA frames in many calls, where the stream ends" do
    { pipe: :frames, writer: :userspace }.each do |kind, route|
      [nil, ->(_) {}].each do |progress| # in one attempt, and reported on
        channel = channel(kind)
        channel.read
        changed = counted do
          [[0, 100_000, false], [100_000, 50_000, false], [150_000, 10, true]].each do |offset, len, end_stream|
            S.copy_data_frames(channel.out, payload_file(200_000), offset, len, stream_id: 1, end_stream: end_stream,
                               &progress)
          end
        end
        expect(changed.except(:waits)).to eq(responses: { route => 1 }, bytes: { route => 150_010 })
      end
    end
  end

  Waiters::ALL.each do |waiter|
    needs = %i[thread blocking].include?(waiter) ? [] : :page_cache # a FileBody waits as its fiber does
    it "counts one response for a body of several regions (#{waiter})", needs: needs do
      require "hyperion/http/sendfile/rack"
      { [[0, 100_000]] => { sendfile: 1 },
        ["boundary", [0, 100_000], "boundary", [200_000, 1_000], "end"] => { small: 1 },
        [[10, 1_000], "boundary", [200_000, 100_000]] => { sendfile: 1 },
        %w[text alone] => { small: 1 },
        ["x" * 100_000] => { small: 1 } }.each do |segments, responses|
        channel = channel(:tcp)
        reader = channel.read
        body = S::FileBody.new(payload_file(300_000), segments, timeout: 30)
        changed = counted { start_under(waiter) { body.copy_to(channel.out) }.value }
        channel.finish
        expect(reader.result.bytesize).to eq(body.bytesize)
        expect(changed.fetch(:responses)).to eq(responses)
        expect(changed.fetch(:bytes, {}).values.sum).to eq(segments.grep(Array).sum(&:last))
      end
    end
  end

  it "loses no count between threads" do
    channels = Array.new(4) { channel(:unix) }
    file = payload_file(100)
    changed = counted do
      channels.map do |channel|
        Thread.new do
          300.times do
            S.copy_to_socket(channel.out, file, 0, 100)
            channel.peer.readpartial(1_000)
          end
        end
      end.each(&:join)
    end
    expect(changed).to eq(responses: { small: 1_200 }, bytes: { small: 120_000 })
  end
end
