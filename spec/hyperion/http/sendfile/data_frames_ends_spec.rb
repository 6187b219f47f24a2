# frozen_string_literal: true

# What a region of DATA frames can end with midway, and what is left of the connection: whole frames, or a torn one
# and an error that says so.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, ".copy_data_frames midway" do
  size = 1_000_003
  whole = 61 * 16_384 # the whole frames of that
  small_frames = 16_384
  large_frames = 262_144
  waiters = Waiters::ALL & %i[thread fiber_minimal]
  kinds = %i[tcp pipe tls13 wrapper]
  head = Http2Frames.headers(77, stream_id: 5)

  define_method(:start_frames) do |waiter, out, source, *region, **options, &progress|
    start_under(waiter) { S.copy_data_frames(out, source, *region, stream_id: 5, **options, &progress) }
  end

  # A channel whose reader has read nothing, and a sender asleep on it.
  define_method(:stall) do |kind, waiter, source, *region, **options, &progress|
    channel = channel(kind, small: true)
    reader = channel.read(:stalled)
    sender = start_frames(waiter, channel.out, source, *region, **options, &progress)
    await_backpressure(channel, sender)
    [channel, reader, sender]
  end

  # The region's bytes in whole frames on the wire, and what there is of one that is not.
  define_method(:received) do |channel, reader|
    channel.finish
    frames, rest = Http2Frames.parse(channel.decode(reader.result))
    [frames.select { |frame| frame.stream_id == 5 && frame.type.zero? }, rest]
  end

  # The error's word against the wire.
  define_method(:expect_told) do |error, frames, rest|
    expect(error.torn?).to eq(!rest.empty?)
    sent = frames.map(&:data).join
    expect(sent + rest.byteslice(9..).to_s).to be_payload(payload(size).byteslice(0, error.bytes_sent))
  end

  # That the connection can be used: another stream's frames, and their end.
  define_method(:expect_usable) do |channel, reader|
    S.copy_data_frames(channel.out, "after", 0, 5, stream_id: 7)
    channel.finish
    frames, rest = Http2Frames.parse(channel.decode(reader.result))
    expect(rest).to eq("")
    expect(frames.last.to_a).to eq([5, 0, 1, 7, "after"])
    frames[0..-2]
  end

  it "takes bytes for bytes, whatever the encoding of a String" do
    text = "\u00e9" * 20_000
    channel = channel(:writer)
    S.copy_data_frames(channel.out, text, 0, 40_000, stream_id: 200, head: "\xff".b)
    expect(channel.out.string).to be_payload("\xff".b + Http2Frames.expected(text.b, stream_id: 200))
  end

  describe "an exception of the caller's own" do
    def leave(source, out = StringIO.new(+""), **options, &block)
      S.copy_data_frames(out, source, 0, 1_000_003, stream_id: 5, **options, &block)
    rescue StandardError, SecurityError => e
      e
    end

    [TypeError, SecurityError].each do |own|
      it "answers torn? and bytes_sent where it comes midway (#{own.name || own.superclass})" do
        error = leave(payload_file(size)) { raise own }
        expect(error).to be_an_instance_of(own).and have_attributes(torn?: false, bytes_expected: size)
        expect(error.bytes_sent).to be_positive

        torn = Object.new
        torn.define_singleton_method(:write) { |data| @written ? raise(own) : (@written = data.bytesize - 100) }
        expect(leave(payload_file(size), torn)).to be_an_instance_of(own).and have_attributes(torn?: true)
      end

      it "does not where it comes before the first byte (#{own.name || own.superclass})" do
        allow(S.const_get(:Transfer)).to receive(:now).and_raise(own)
        expect(leave(payload_file(size), timeout: 1)).not_to respond_to(:torn?)
      end
    end
  end

  kinds.product(waiters).each do |kind, waiter|
    context "with #{kind}, waiting by #{waiter}" do
      it "sends the whole frames of a file that ends in one, and leaves the connection usable" do
        [[small_frames, 61, false], [large_frames, 3, false], [small_frames, 61, true]].each do |max, frames, reported|
          channel = channel(kind)
          reader = channel.read
          progress = reported ? ->(_) {} : nil
          error = start_frames(waiter, channel.out, payload_file(size), 0, 2_000_000, max_frame_size: max,
                               &progress).error
          expect(error).to be_a(S::TruncatedError).and have_attributes(bytes_sent: frames * max, torn?: false,
                                                                       bytes_expected: 2_000_000)
          expect(error.message).to include("no frame is cut in two")
          sent = expect_usable(channel, reader)
          expect(sent.map(&:data).join).to be_payload(payload(size).byteslice(0, frames * max))
          expect(sent).to all(have_attributes(octets: max, end_stream?: false))
        end
      end

      it "sends all of a file that ends at the end of a frame" do
        [small_frames, large_frames].each do |max|
          channel = channel(kind)
          reader = channel.read
          error = start_frames(waiter, channel.out, payload_file(786_432), 0, 786_433, max_frame_size: max, head: head)
                  .error
          expect(error).to be_a(S::TruncatedError).and have_attributes(bytes_sent: 786_432, torn?: false)
          sent = expect_usable(channel, reader).drop(1)
          expect(sent.map(&:data).join).to be_payload(payload(786_432))
        end
      end

      it "never tears a small frame of a file that is truncated midway",
         needs: (:openssl if Channels::TLS.include?(kind)) do
        [0, 16_000, 16_384].each do |left|
          file = private_payload_file(size)
          channel, reader, sender = stall(kind, waiter, file, 0, size)
          File.truncate(file.path, left)
          reader.go(:greedy)
          error = sender.error
          expect(error).to be_a(S::TruncatedError).and have_attributes(torn?: false, bytes_expected: size)
          expect(error.bytes_sent).to be_positive
          sent = expect_usable(channel, reader)
          expect(sent.map(&:data).join).to be_payload(payload(size).byteslice(0, error.bytes_sent))
        end
      end

      it "is not torn by a file that can't be read", needs: :linux do
        channel = channel(kind)
        reader = channel.read
        error = start_frames(waiter, channel.out, Cleanup.close(File.open("/")), 0, 100).error
        expect(error).to be_a(Errno::EISDIR).and have_attributes(bytes_sent: 0, bytes_expected: 100, torn?: false)
        expect(expect_usable(channel, reader)).to be_empty
      end

      # Behind the end of the stack nothing is mapped.
      it "sends the whole frames before what can't be read", needs: :linux do
        top = File.readlines("/proc/self/maps").grep(/\[stack\]/).first[/-(\h+)/, 1].hex
        channel = channel(kind)
        reader = channel.read
        memory = Cleanup.close(File.open("/proc/self/mem"))
        error = start_frames(waiter, channel.out, memory, top - 32_768, 40_000).error
        expect(error).to be_a(Errno::EIO).and have_attributes(bytes_sent: 32_768, torn?: false)
        expect(expect_usable(channel, reader)).to contain_exactly(*[have_attributes(octets: small_frames)] * 2)
      end

      it "tells whether a large frame was torn by a file that is truncated midway",
         needs: (:openssl if Channels::TLS.include?(kind)) do
        [0, 200_000, 262_144].each do |left|
          file = private_payload_file(size)
          channel, reader, sender = stall(kind, waiter, file, 0, size, max_frame_size: large_frames)
          File.truncate(file.path, left)
          reader.go(:greedy)
          error = sender.error
          expect(error).to be_a(S::TruncatedError)
          expect_told(error, *received(channel, reader))
        end
      end

      it "tells whether a timeout tore a frame", :patience, needs: (:openssl if Channels::TLS.include?(kind)) do
        [[small_frames, nil], [large_frames, nil], [small_frames, Http2Frames.headers(16_000, stream_id: 5)]]
          .each do |max, start|
            channel = channel(kind, small: true)
            reader = channel.read(:stalled)
            error = start_frames(waiter, channel.out, payload_file(size), 0, size, max_frame_size: max, head: start,
                                                                                   timeout: 0.2).error
            expect(error).to be_a(S::TimeoutError).and have_attributes(bytes_expected: size, torn?: true)
            expect(error.message).to include("the connection must be closed")
            next if kind == :wrapper # its write has told no one how far it came

            reader.go(:greedy)
            frames, = received(channel, reader)
            expect(frames.sum { |frame| frame.data.bytesize }).to be <= error.bytes_sent
          end
      end

      it "can be left by break at any boundary" do
        [small_frames, large_frames].product([false, true]).each do |max, small|
          channel = channel(kind, small: small)
          reader = channel.read
          left_at = start_under(waiter) do
            S.copy_data_frames(channel.out, payload_file(size), 0, size, stream_id: 5, max_frame_size: max) do |sent|
              break sent
            end
          end.value
          sent = expect_usable(channel, reader)
          expect(sent.map(&:data).join).to be_payload(payload(size).byteslice(0, left_at))
        end
      end

      it "can be left by an exception at any boundary" do
        channel = channel(kind)
        reader = channel.read
        error = start_frames(waiter, channel.out, payload(size), 0, size) { raise IOError, "mine" }.error
        expect(error).to be_an(IOError).and have_attributes(message: "mine", torn?: false)
        sent = expect_usable(channel, reader)
        expect(sent.map(&:data).join).to be_payload(payload(size).byteslice(0, error.bytes_sent))
      end

      it "ends when the peer is gone", needs: (:openssl if Channels::TLS.include?(kind)) do
        _, reader, sender = stall(kind, waiter, payload(size), 0, size)
        reader.close
        expect(sender.error).to be_a(SystemCallError).or be_an(IOError).or be_a(OpenSSL::SSL::SSLError)
        expect(sender.error.bytes_expected).to eq(size)
        expect(sender.error.bytes_sent).to be < size
      end
    end
  end

  it "lets go of what was read when it is killed, and leaks no descriptor" do
    kill = lambda do
      waiters.product([small_frames, large_frames]).each do |waiter, max|
        channel, reader, sender = stall(:tcp, waiter, payload_file(size), 0, size, max_frame_size: max)
        sender.stop
        reader.go(:greedy)
        frames, rest = received(channel, reader)
        sent = frames.map(&:data).join + rest.byteslice(9..).to_s
        expect(payload(size)).to start_with(sent)
      end
      Cleanup.run
    end
    kill.call
    expect { kill.call }.not_to leak_fds
  end

  # Asks by a byte for so many, again and again; tells the longest silence within each answer. In a process of its own,
  # so that it sees the network, and not Ruby's other threads.
  define_method(:silences) do |peer, wire, answers, bytes|
    report, to_report = IO.pipe.each { |io| Cleanup.close(io) }
    pid = fork do
      wire.close
      to_report.write(Marshal.dump(Array.new(answers) { silence(peer, bytes) }))
    ensure
      exit!(true)
    end
    Cleanup.later { Process.kill(:KILL, pid) && Process.wait(pid) }
    to_report.close
    -> { Marshal.load(report.read) } # rubocop:disable Security/MarshalLoad -- our own child
  end

  define_method(:silence) do |peer, left|
    peer.write("?")
    last = Eventually.now
    longest = 0
    while left.positive?
      left -= peer.readpartial(left).bytesize
      longest = [longest, -last + (last = Eventually.now)].max
    end
    longest
  end

  # Two regions in a row, each left at its first boundary: with Nagle's algorithm on, the end of the second would
  # wait for the acknowledgement of the first's, which the peer delays by 40 ms.
  it "does not hold back the last frame before a break", needs: :linux do
    max = 40_000
    channel = channel(:tcp)
    seen = silences(channel.peer, channel.wire, 60, 2 * (max + 9))
    file = payload_file(size)
    60.times do
      channel.out.readpartial(1)
      2.times { S.copy_data_frames(channel.out, file, 0, size, stream_id: 5, max_frame_size: max) { break } }
    end
    expect(seen.call.count { |seconds| seconds > 0.035 }).to be < 3
  end

  # Ruby lets other threads run while an attempt is made.
  it "tells what was sent where another thread closes the file as the first attempt ends", needs: :extension do
    native = S.const_get(:Native)
    file = payload_file(size)
    allow(native).to receive(:frames_at_once).and_wrap_original do |original, *arguments, &block|
      original.call(*arguments, &block).tap { file.close }
    end
    channel = channel(:tcp, small: true)
    reader = channel.read(:stalled)
    error = start_frames(:thread, channel.out, file, 0, 200_000).error
    reader.go(:greedy)
    frames, rest = received(channel, reader)
    expect(error).to be_a(IOError)
    expect(error.bytes_sent).to be_positive
    expect_told(error, frames, rest)
  end

  # Ruby runs them before an attempt, or after it; there is no other thread.
  it "tells what was sent where signal handlers come before the first attempt and after it", needs: :extension do
    untold = Faults.in_child do
      inside = false
      trap(:USR1) { nil }
      trap(:USR2) do
        next unless inside

        inside = false
        raise IOError, "mine"
      end
      main = Process.pid
      signals = fork { loop { %i[USR1 USR2].each { |signal| Process.kill(signal, main) && sleep(0.001) } } }
      errors = Array.new(300) do
        out, peer = UNIXSocket.pair
        Descriptors.shrink_send_buffer(out, 20_000)
        inside = true
        S.copy_data_frames(out, payload_file(size), 0, 200_000, stream_id: 5)
      rescue IOError => e
        received = peer.read_nonblock(200_000, exception: false)
        received = "" if received == :wait_readable
        [e.torn?, Http2Frames.parse(received).last.empty?] if S::Progress === e
      ensure
        [out, peer].each(&:close)
      end
      errors.compact.count { |torn, clean| torn == clean }
    ensure
      Process.kill(:KILL, signals)
      Process.wait(signals)
    end
    expect(untold).to eq(0)
  end

  it "has whole frames of #{whole} bytes to speak of" do
    expect(payload(size).bytesize / small_frames * small_frames).to eq(whole)
  end
end
