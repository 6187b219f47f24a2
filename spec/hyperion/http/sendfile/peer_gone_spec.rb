# frozen_string_literal: true

# A peer that resets or closes midway is an error with counts, and never a SIGPIPE.

require "spec_helper"
require "fiddle"
require_relative "every_route"

# What Ruby has no words for.
module SignalMask
  SET = 128 # bytes in a sigset_t
  BLOCK = 0

  def self.call(name, *arguments)
    types = arguments.map { |argument| argument.is_a?(Integer) ? Fiddle::TYPE_INT : Fiddle::TYPE_VOIDP }
    Fiddle::Function.new(Fiddle::Handle::DEFAULT[name], types, Fiddle::TYPE_INT).call(*arguments)
  end

  def self.sigpipe
    "\0".b.ljust(SET, "\0").tap { |set| call("sigaddset", set, Signal.list["PIPE"]) }
  end

  def self.block_sigpipe
    call("pthread_sigmask", BLOCK, sigpipe, nil.to_s)
  end

  def self.raise_sigpipe
    call("raise", Signal.list["PIPE"])
  end

  def self.sigpipe_pending?
    set = "\0".b.ljust(SET, "\0")
    call("sigpending", set)
    call("sigismember", set, Signal.list["PIPE"]) == 1
  end
end

RSpec.describe Hyperion::Http::Sendfile do
  include EveryRoute

  let(:gone) { [Errno::EPIPE, Errno::ECONNRESET] }
  let(:head) { "HTTP/1.1 200 OK\r\nx-name: h\u00e9\r\n\r\n" }

  # As Reader does it, for a peer that no one reads from.
  def go_away(channel)
    wire = channel.peer.to_io
    wire.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, Reader::Drain::RESET) unless channel.kind == :pipe
    wire.close
  end

  # Bytes that the connection has taken so far, also of one that is dead by now.
  def taken(channel)
    return Descriptors.bytes_acknowledged(channel.wire) + channel.queued if tcp?(channel)

    Descriptors.ioctl(channel.peer.to_io, Descriptors::FIONREAD)
  end

  def tcp?(channel)
    channel.wire.is_a?(TCPSocket)
  end

  EveryRoute::ALL.each do |route|
    context "with #{route}" do
      %i[reset close].each do |going|
        it "tells of a #{going} midway, and how far it came" do
          sendings = stall_all(route, 0, route.bytes, head: head)
          sendings.each do |sending|
            count = taken(sending.channel)
            sending.peer_goes(going)
            expect(seconds { sending.failure }).to be < Eventually::LATE
            expect(gone).to include(sending.error.class), "#{sending}: #{sending.error.inspect}"
            expect(sending.error.bytes_expected).to eq(route.bytes)
            count = taken(sending.channel) if tcp?(sending.channel)
            count -= head.bytesize
            if route.tls? || route.kind == :wrapper
              expect(sending.error.bytes_sent).to be_between(0, count) # records, or writes, that were whole
            else
              expect(sending.error.bytes_sent).to eq(count), "#{sending}: #{sending.error.bytes_sent} of #{count}"
            end
          end
        end
      end

      it "tells the block as much as the error does" do
        sendings = stall_all(route, 0, route.bytes, observe: true)
        sendings.each do |sending|
          sending.peer_goes(:reset)
          expect(gone).to include(sending.error.class), "#{sending}: #{sending.error.inspect}"
          expect(sending.error.bytes_sent).to eq(sending.totals.last || 0)
        end
      end

      it "tells of a peer that went before the transfer" do
        Waiters::ALL.each do |waiter|
          channel = open_channel(route, small: false)
          channel.peer.to_io.close
          # A FIN alone stops no sender: the first transfer may find room for all.
          said = Array.new(3) { start_sender(waiter, channel.out, source_for(route), 0, route.bytes).value.first }
          expect(said.last(2)).to all(be_a(SystemCallError)), "#{waiter}: #{said}"
          errors = said.grep(Exception)
          expect(gone).to include(*errors.map(&:class)), "#{waiter}: #{said}"
          expect(errors.last.bytes_sent).to eq(0)
        end
      end
    end
  end

  describe "SIGPIPE", needs: :extension do
    # Runs the block in a child of its own, which may write lines; returns them and how it ended.
    def in_child
      from_child, to_parent = IO.pipe.each { |io| Cleanup.close(io) }
      child = fork do
        from_child.close
        to_parent.sync = true
        yield to_parent
      rescue Exception => e # rubocop:disable Lint/RescueException -- the parent's to look at
        to_parent.puts("#{e.class}: #{e.message}")
      ensure
        exit!(0)
      end
      to_parent.close
      lines = from_child.readlines(chomp: true)
      Process.wait(child)
      [lines, Process.last_status]
    end

    # Twice to a peer that is gone: after a reset the first error is ECONNRESET, which raises no signal.
    def send_to_nobody(route, waiter, log)
      channel = open_channel(route)
      go_away(channel)
      errors = Array.new(3) do
        log.puts "#{route} by #{waiter}"
        start_sender(waiter, channel.out, source_for(route), 0, route.bytes, head: head).value.first
      end
      raise "#{route} by #{waiter}: #{errors.last.inspect}" unless errors.all?(Exception)
    end

    EveryRoute::ALL.reject { |route| route.kind == :wrapper }.each do |route| # whose write is its own affair
      it "kills no process, with #{route}" do
        lines, status = in_child do |log|
          trap("PIPE", "SYSTEM_DEFAULT")
          Waiters::ALL.each { |waiter| send_to_nobody(route, waiter, log) }
          log.puts "survived"
        end
        expect(status).to be_success, "#{status} at #{lines.last}"
        expect(lines.last).to eq("survived")
      end

      it "reaches no handler of the program's, with #{route}" do
        lines, = in_child do |log|
          trap("PIPE") { log.write_nonblock("SIGPIPE\n") }
          Waiters::ALL.each { |waiter| send_to_nobody(route, waiter, log) }
          sleep 0.01 # for a handler that is due
          log.puts "survived"
        end
        expect(lines.last).to eq("survived")
        expect(lines).not_to include("SIGPIPE")
      end
    end

    plain = EveryRoute::ALL.reject { |route| route.tls? || route.kind == :wrapper }

    # In this thread, the only one whose signal mask is known.
    def send_here(route)
      channel = open_channel(route)
      go_away(channel)
      3.times do
        S.copy_to_socket(channel.out, source_for(route), 0, route.bytes, head: head)
      rescue Errno::EPIPE, Errno::ECONNRESET
        next
      end
    end

    { "neither eats one of the program's own that is pending" => true, "nor leaves one behind" => false }
      .each do |what, pending|
        it what do
          lines, status = in_child do |log|
            trap("PIPE", "SYSTEM_DEFAULT")
            SignalMask.block_sigpipe
            SignalMask.raise_sigpipe if pending
            plain.each do |route|
              send_here(route)
              log.puts "#{route}: #{SignalMask.sigpipe_pending?}"
            end
          end
          expect(status).to be_success
          expect(lines).to eq(plain.map { |route| "#{route}: #{pending}" })
        end
      end

    it "stays with the primitives' callers too: none is raised" do
      calls = {
        copy: [:tcp, []], copy_small: [:tcp, []], copy_splice: [:tcp, []], copy_splice_into_pipe: [:tcp, IO.pipe]
      }
      calls.each_value { |_, pipe| pipe.each { |io| Cleanup.close(io) } }
      lines, status = in_child do |log|
        trap("PIPE", "SYSTEM_DEFAULT")
        calls.each do |name, (_, pipe)|
          Channels::KERNEL.each do |kind|
            channel = channel(kind)
            go_away(channel)
            3.times do
              S.public_send(name, channel.out, payload_file(8_192), 0, 8_192, *pipe)
            rescue Errno::EPIPE, Errno::ECONNRESET
              next
            end
            log.puts "#{name} #{kind}"
          end
        end
      end
      expect(status).to be_success, "#{status} after #{lines.last}"
      expect(lines).to eq(calls.keys.product(Channels::KERNEL).map { |pair| pair.join(" ") })
    end
  end
end
