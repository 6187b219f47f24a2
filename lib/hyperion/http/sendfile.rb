# frozen_string_literal: true

# The public API: a region of a file to a socket. Reads as the data path: which kind of destination
# it is, the small body in one call, else a route, until every byte is out or an exception says how
# many are.

# The server hyperion-rb brings a module of the same name.
if defined?(Hyperion::Server) ||
   (defined?(Hyperion::Http::Sendfile.copy_to_socket) && !defined?(Hyperion::Http::Sendfile::TruncatedError))
  raise LoadError, "hyperion-sendfile can't be loaded where hyperion-rb is: " \
                   "both define Hyperion::Http::Sendfile. Take one of them out of the Gemfile."
end

require "io/wait"
require "timeout"
require_relative "sendfile/version"
# A gem that comes compiled has a folder for each Ruby.
folder = RUBY_VERSION[/\A\d+\.\d+/] if Dir.exist?(File.join(__dir__, "sendfile", RUBY_VERSION[/\A\d+\.\d+/]))
extension = ["hyperion/http/sendfile", *folder, "hyperion_sendfile"].join("/")
begin
  # By the load path: RubyGems may keep what it compiles in a folder apart.
  require extension
rescue LoadError => e
  raise unless e.path == extension # built, and not loadable

  require_relative "sendfile/fallback"
end

module Hyperion
  module Http
    # Sends a region of a file to a socket: exactly those bytes, by the cheapest safe route, or an
    # exception that says how far it got.
    #
    # {copy_to_socket} is what a server calls. The primitives below it ({copy}, {copy_small},
    # {copy_splice}, {copy_splice_into_pipe}, {fadvise_sequential}) are single attempts without
    # waiting, for those who bring a loop of their own.
    module Sendfile
      # Bytes read at a time where data has to pass through Ruby.
      USERSPACE_CHUNK = 256 * 1024
      # Bodies up to this many bytes go by {copy_small}.
      SMALL_FILE_THRESHOLD = small_file_threshold
      # Bodies over this many bytes go by splice, where that is enabled.
      SPLICE_THRESHOLD = SMALL_FILE_THRESHOLD
      # From this many bytes on the kernel is told that they will be read in order.
      FADVISE_THRESHOLD = 256 * 1024

      # Kinds of destination that the kernel sends to from a file.
      NATIVE_KINDS = %i[native ktls].freeze
      # Whether the extension is there.
      EXTENSION = Native.respond_to?(:transfer)
      private_constant :NATIVE_KINDS, :EXTENSION

      self.keep_gvl = true if ENV["HYPERION_HTTP_KEEP_GVL"] == "1"
      self.sendfile_enabled = false if %w[0 false off no].include?(ENV["HYPERION_HTTP_SENDFILE"])
    end
  end
end

require_relative "sendfile/errors"
require_relative "sendfile/stats"
require_relative "sendfile/arguments"
require_relative "sendfile/transfer"
require_relative "sendfile/read_ahead"
require_relative "sendfile/waiters"
require_relative "sendfile/loop"
require_relative "sendfile/native_route"
require_relative "sendfile/ktls"
require_relative "sendfile/sources"
require_relative "sendfile/userspace_route"
require_relative "sendfile/tls_route"
require_relative "sendfile/data_frames"

module Hyperion
  module Http
    # The façade: see above.
    module Sendfile
      private_constant :Stats, :Arguments, :Transfer, :ReadAhead, :Waiters, :Loop, :NativeRoute, :Sources,
                       :UserspaceRoute, :TlsRoute

      class << self
        # Sends a region of a file, and returns when all of it is with the kernel. In a non-blocking
        # fiber under a scheduler it waits through the scheduler and takes turns with other fibers;
        # elsewhere it waits in C, without the GVL.
        #
        # Whatever leaves the call after the first byte answers {Progress#bytes_sent}, also an exception of the
        # caller's block, source or destination: the peer has got a part of the response, and the connection must
        # be closed. An exception that does not answer it came before the first byte.
        #
        # @param out [IO, Integer, OpenSSL::SSL::SSLSocket, #write] the destination. What Ruby has
        #   buffered for it goes out first. An object that merely wraps an IO gets its own `write`.
        # @param file [IO, Integer, #to_io, #pread, #readpartial, #read] the source. The position of a
        #   file neither matters nor moves, so threads may send the same File at once.
        # @param offset [Integer] bytes from the start of the file
        # @param len [Integer, nil] bytes; nil is to the end of the file
        # @param head [String, nil] goes out before the region, in the same segment where it fits
        # @param timeout [Numeric, nil, :io] seconds without a byte before TimeoutError, not counting those in which a
        #   disk, or the server of a file, is waited for; nil is for ever,
        #   and :io the destination's own `timeout`, where Ruby has that.
        # @yieldparam sent [Integer] bytes of the region that are out, after each step
        # @return [Integer] bytes of the region sent, the head not counted: always len
        # @raise [TruncatedError] the file ends before the region
        # @raise [TimeoutError] no byte moved for the given time
        # @raise [SystemCallError] EPIPE or ECONNRESET when the peer is gone, or what the kernel said; it
        #   answers {Progress#bytes_sent} too
        # @raise [IOError] out or file is closed, or was closed by another thread meanwhile
        # @raise [OpenSSL::SSL::SSLError] what OpenSSL said of the connection; it answers {Progress#bytes_sent} too
        # @raise [ArgumentError, TypeError, RangeError] a bad argument; nothing was written
        # @see https://man7.org/linux/man-pages/man2/sendfile.2.html sendfile(2)
        def copy_to_socket(out, file, offset = 0, len = nil, head: nil, timeout: :io, &progress)
          deliver(nil, out, file, offset, len, head, timeout, progress)
        end

        # As {copy_to_socket}, but never yields to a fiber scheduler: it parks the thread.
        #
        # @param (see #copy_to_socket)
        # @yieldparam (see #copy_to_socket)
        # @return (see #copy_to_socket)
        # @raise (see #copy_to_socket)
        def copy_to_socket_blocking(out, file, offset = 0, len = nil, head: nil, timeout: :io, &progress)
          deliver(Waiters::InThread, out, file, offset, len, head, timeout, progress)
        end

        # By which route a destination is served. Only a real IO is native: an object that wraps one may
        # be encrypting. Native is also what {sendfile_enabled=} has turned sendfile off for: it is read and written
        # in C, then.
        #
        # @param out [Object] a destination, as for {copy_to_socket}
        # @return [Symbol] :native, :ktls, :tls_userspace or :userspace
        # @raise [TypeError] it is no destination
        def fast_path_kind(out)
          return supported? ? :native : :userspace if IO === out || Integer === out
          return !out.closed? && Native.ktls?(out.to_io) ? :ktls : :tls_userspace if tls?(out)
          return :userspace if Arguments.destination?(out)

          raise TypeError, "out must be an IO, a file descriptor, or answer write, not #{out.class}"
        end

        # Whether responses over {SPLICE_THRESHOLD} go by splice(2): this system has it, no kernel has
        # said otherwise, and the operator asked for it by `HYPERION_HTTP_SPLICE=1`, and did not turn sendfile off.
        #
        # @return [Boolean]
        # @see sendfile_enabled=
        def splice_runtime_supported?
          ENV["HYPERION_HTTP_SPLICE"] == "1" && splice_supported? && !Native.splice_marked_unsupported? &&
            sendfile_enabled?
        end

        # What was sent in this process so far, and in the one it was forked from before that. Counters are not
        # read at one instant: a response may be counted, and its bytes not yet.
        #
        # - `responses`: those sent whole, by route. A call of {copy_to_socket} is one; a call of {copy_data_frames}
        #   is, if it has `end_stream`; a {FileBody} is one, whatever it consists of.
        # - `bytes`: of regions, those of failed responses too, by route. The routes are :small, :sendfile, :splice,
        #   :memory, :ktls, :tls_userspace, :userspace, and :frames (DATA frames to plain descriptors).
        # - `waits`: how often a write moved nothing, since the socket had no room. Fibers rarely see that: they
        #   wait after every partial write, too, and those waits are not counted.
        # - `fallbacks`: changes to another route, because the kernel would not go on by this one.
        # - `timeouts`, `truncations`: of {TimeoutError} and {TruncatedError}.
        #
        # @return [Hash{Symbol=>Hash, Integer}]
        def stats
          Stats.snapshot
        end

        # A region that is not the last of its response: {stats} counts its bytes alone.
        # @api private
        def copy_part(out, file, offset, len, head:, timeout:)
          by_route(Waiters.current, nil, out, file, offset, len, head, timeout, nil, ends_response: false)
          take_turns(len)
        end

        # @api private
        def tls?(out)
          defined?(OpenSSL::SSL::SSLSocket) ? OpenSSL::SSL::SSLSocket === out : false
        end

        private

        # From one IO to another, which is what a server sends most, all of it happens in C. Everything else is
        # looked at closely, and sent by a route; so is what is to be reported on.
        #
        # @param waiter [Module, nil] nil: whichever suits who is calling
        def deliver(waiter, out, file, offset, len, head, timeout, progress)
          sent = of_head = 0
          begin
            unless progress
              moved = Native.copy_at_once(out, file, offset, len, head, timeout, waiter) do |body, head_bytes|
                sent = body
                of_head = head_bytes
              end
            end
          rescue Errno::ESPIPE
            nil # the file has no offsets, and nothing was sent
          rescue Exception => e
            raise Progress.tell(e, sent, len, begun: sent + of_head != 0)
          ensure
            count_cut_short(sent, len, e) if e || (moved.nil? && sent != 0)
          end
          return len if moved == true # a return across an ensure is an object

          moved, head = moved if Array === moved
          return take_turn(waiter, len) if moved == :turn

          by_route(waiter || Waiters.current, moved, out, file, offset, len, head, timeout, progress)
        end

        def count_cut_short(sent, len, error)
          return unless Integer === len

          Stats.response(len > SMALL_FILE_THRESHOLD ? :sendfile : :small, sent, false, error)
        end

        def take_turn(waiter, len)
          Waiters::InFiber.pause(0) if waiter.nil? && Waiters.under_scheduler?
          len
        end

        # @param moved [Integer, nil] bytes of head and region that are out already; nil: nothing was tried
        # @param ends_response [Boolean] whether it is the last, or only, region of its response
        def by_route(waiter, moved, out, file, offset, len, head, timeout, progress, ends_response: true)
          transfer = transfer_of(out, file, offset, len, head, timeout, progress)
          transfer.advance_through_head(moved) if moved
          flush(out, transfer, waiter)
          transfer.guarded(waiter) do
            (transfer.native? && NativeRoute.run(transfer, waiter, moved.nil?)) || UserspaceRoute.run(transfer, waiter)
          end
          whole = true
          transfer.sent
        rescue Exception => e
          raise Progress.tell(e, transfer.sent, transfer.length, begun: transfer.begun?) if transfer

          raise Progress.tell(e, of_body(moved, head, len), len, begun: moved && moved != 0)
        ensure
          ended = ends_response && (whole || transfer&.complete?)
          Stats.response(transfer.route, transfer.sent, ended, e) if transfer
        end

        def transfer_of(out, file, offset, len, head, timeout, progress)
          kind = Arguments.check(out, file, offset, len, head, timeout)
          source = Sources.descriptor(file, offset)
          to_end = len.nil? && source
          len = Sources.length_to_end(source, offset) if to_end
          timeout = own_timeout(out) if timeout == :io
          cursor = kind == :ktls ? Ktls::Transfer : Transfer
          transfer = cursor.new(out, source || file, offset, len, head, timeout, progress)
          transfer.native = source && len && NATIVE_KINDS.include?(kind)
          transfer.to_end = to_end
          transfer
        end

        # @param moved [Integer, nil, true] bytes of head and region that are out; true: all of them
        def of_body(moved, head, len)
          return moved ? len : 0 unless Integer === moved

          [moved - head.to_s.bytesize, 0].max
        end

        def own_timeout(out)
          io = tls?(out) ? out.to_io : out
          io.timeout if IO === io && io.respond_to?(:timeout)
        end

        # What Ruby holds for the destination comes before the region.
        def flush(out, transfer, waiter)
          return if flushed?(out, transfer)

          held = transfer.ktls? ? [out, transfer.out] : [out]
          Waiters.within(waiter, transfer.timeout) do
            waiter.steps_wait? ? Native.without_sigpipe { held.each(&:flush) } : held.each(&:flush)
          end or raise transfer.timed_out
          transfer.start
        end

        def flushed?(out, transfer)
          return Native.flushed?(out) if IO === out
          return Ktls.flushed?(out) if transfer.ktls?

          !tls?(out) || TlsRoute.flushed?(out)
        end
      end
    end
  end
end
