# frozen_string_literal: true

require "etc"
require "objspace"
require "socket"
require_relative "heartbeat"
require_relative "pacing"

module Bench
  # Many slow clients and a fast one on one event loop. The server, the slow clients and the fast one are processes of
  # their own, new for each run, so that no memory of an earlier run is used again.
  #
  # All slow transfers begin first: they fill their sockets and wait, which is when memory is measured. Then the slow
  # clients read, a piece at a time, and the fast one asks again and again until they have everything.
  class Crowd
    # Of either end of a slow connection: what the kernel holds must not be all there is to send.
    BUFFER = 32 * KIB
    # What a slow client reads at a time, how often, and how often one of them does, in seconds.
    PIECE = 32 * KIB
    PACE = 0.4
    TICK = 0.02
    READ_SIZE = 1 << 20
    # Descriptors a process needs besides those of its connections.
    SPARE = 64
    private_constant :BUFFER, :PIECE, :PACE, :TICK, :READ_SIZE, :SPARE

    # Bytes for each connection, of Ruby's objects and resident; the heartbeat that beat beside; how many
    # clients got their responses, byte for byte; bytes per second of the fast one.
    Outcome = Struct.new(:objects, :resident, :heartbeat, :exact, :rate)

    # @param content [String] what the file holds, all of which a response to the fast client is
    # @param slow [Integer] how many slow clients
    # @param length [Integer] bytes of each of their responses
    def initialize(content, slow:, length:)
      @content = content
      @slow = slow
      @length = length
      soft, hard = Process.getrlimit(:NOFILE)
      Process.setrlimit(:NOFILE, [soft, slow + SPARE].max, hard)
    end

    # The block sends: it gets a socket and a length.
    def run(&transfer)
      listeners = Array.new(2) { Pacing.off(TCPServer.new("127.0.0.1", 0)).tap { |listener| listener.listen(@slow) } }
      @ports = listeners.map { |listener| listener.addr[1] }
      @begun, begin_all = IO.pipe
      clients = [method(:crawl), method(:race)].map do |client|
        process do
          begin_all.close
          client.call
        end
      end
      server = process { serve(*listeners, begin_all, &transfer) }
      begin_all.close
      slow, fast, served = *clients.map { |client| finish(*client) }, finish(*server)
      Outcome.new(*served, slow + fast[0], fast[1])
    ensure
      [*listeners, @begun].compact.each(&:close)
    end

    private

    def process
      result, to_parent = IO.pipe(binmode: true)
      id = fork do
        result.close
        Marshal.dump(yield, to_parent)
        to_parent.close
        exit!(true)
      ensure
        warn "bench: #{$ERROR_INFO.full_message}" if $ERROR_INFO
        exit!
      end
      to_parent.close
      [result, id]
    end

    def finish(result, id)
      dump = result.read
      result.close
      Process.wait(id)
      abort "bench: a process of the crowd failed" if dump.empty?
      Marshal.load(dump) # rubocop:disable Security/MarshalLoad -- from the process forked above
    end

    def serve(for_slow, for_fast, begin_all, &transfer)
      heartbeat = Heartbeat.new
      memory = nil
      Async do |task|
        before = used
        transfers = Array.new(@slow) { for_slow.accept }.map { |socket| task.async { respond(socket, &transfer) } }
        sleep(PACE)
        memory = used.zip(before).map { |now, earlier| (now - earlier).fdiv(@slow) }
        heartbeat.beside(task) do
          begin_all.close
          serve_fast(task, for_fast.accept, transfers, &transfer)
        end
      end.wait
      [*memory, heartbeat]
    end

    def respond(socket)
      socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_SNDBUF, BUFFER)
      yield socket, @length
    ensure
      socket.close
    end

    # Until the slow ones have been.
    def serve_fast(task, socket, transfers)
      fast = task.async do
        loop do
          socket.readpartial(1)
          yield socket, @content.bytesize
          break if transfers.all?(&:finished?)
        end
      end
      [*transfers, fast].each(&:wait)
      socket.close
    end

    def used
      GC.start
      [ObjectSpace.memsize_of_all, File.read("/proc/self/statm").split[1].to_i * Etc.sysconf(Etc::SC_PAGESIZE)]
    end

    # The slow ones: how many of them got what they should.
    def crawl
      places = Array.new(@slow) { slow_socket }.to_h { |socket| [socket, 0] }
      @begun.read
      exact = 0
      places.keys.each_slice((@slow * TICK / PACE).ceil).cycle do |sockets|
        break if places.empty?

        sleep(TICK)
        sockets.each { |socket| exact += 1 if places.key?(socket) && advance(socket, places) == @length }
      end
      exact
    end

    def slow_socket
      socket = Socket.new(:INET, :STREAM)
      socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_RCVBUF, BUFFER) # before the window is agreed on
      socket.connect(Addrinfo.tcp("127.0.0.1", @ports[0]))
      socket
    end

    # Reads the next piece. Returns how many bytes there were in all, once all that came was right and there is no more.
    def advance(socket, places)
      piece = socket.read_nonblock(PIECE, exception: false)
      return if piece == :wait_readable

      right = piece == @content.byteslice(places[socket], piece.bytesize) if piece
      return (places[socket] += piece.bytesize) && nil if right

      socket.close
      total = places.delete(socket)
      total unless piece
    end

    # The fast one: 1 if all it got was right, and bytes per second.
    def race
      @begun.read
      socket = TCPSocket.new("127.0.0.1", @ports[1])
      responses = 0
      seconds = Measure.time { responses += 1 while download(socket) }.wall
      [1, responses * @content.bytesize / seconds]
    end

    # @return [Boolean] whether there was another response
    def download(socket)
      socket.write("?")
      place = 0
      buffer = String.new(capacity: READ_SIZE)
      while place < @content.bytesize
        piece = socket.readpartial([READ_SIZE, @content.bytesize - place].min, buffer)
        piece == @content.byteslice(place, piece.bytesize) or raise "bench: the fast client got something else"
        place += piece.bytesize
      end
      true
    rescue EOFError, SystemCallError
      place.zero? ? false : raise
    end
  end
end
