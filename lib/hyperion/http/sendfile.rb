# frozen_string_literal: true

# The public API: sends a region of a file to a socket. The order is that of the data path: find the kind of
# destination, send a small body in one call, else take a route, until every byte is sent or an exception says how many
# were.

# The server hyperion-rb has a module with the same name.
if defined?(Hyperion::Server) ||
   (defined?(Hyperion::Http::Sendfile.copy_to_socket) && !defined?(Hyperion::Http::Sendfile::TruncatedError))
  raise LoadError, "hyperion-sendfile can't be loaded where hyperion-rb is: " \
                   "both define Hyperion::Http::Sendfile. Take one of them out of the Gemfile."
end

require "io/wait"
require "timeout"
require_relative "sendfile/version"
# A precompiled gem has a folder for each Ruby version.
folder = RUBY_VERSION[/\A\d+\.\d+/] if Dir.exist?(File.join(__dir__, "sendfile", RUBY_VERSION[/\A\d+\.\d+/]))
extension = ["hyperion/http/sendfile", *folder, "hyperion_sendfile"].join("/")
begin
  # Required through the load path, because RubyGems may keep compiled extensions in a separate folder.
  require extension
rescue LoadError => e
  raise unless e.path == extension # it is built, but cannot be loaded

  require_relative "sendfile/fallback"
end

module Hyperion
  module Http
    # Sends a region of a file to a socket: exactly those bytes, by the cheapest safe route, or an
    # exception that says how far it got.
    #
    # {copy_to_socket} is what a server calls. The primitives below it ({copy}, {copy_small}, {copy_splice},
    # {copy_splice_into_pipe}, {fadvise_sequential}) are single attempts that never wait, for servers with their own
    # write loop.
    module Sendfile
      # Bytes read at a time if data has to pass through Ruby.
      USERSPACE_CHUNK = 256 * 1024
      # Bodies of up to this many bytes are sent by {copy_small}.
      SMALL_FILE_THRESHOLD = small_file_threshold
      # Bodies of more than this many bytes are sent by splice, if it is enabled.
      SPLICE_THRESHOLD = SMALL_FILE_THRESHOLD
      # For bodies of at least this many bytes, the kernel is advised that they will be read in order.
      FADVISE_THRESHOLD = 256 * 1024

      # Kinds of destination that the kernel sends to from a file.
      NATIVE_KINDS = %i[native ktls].freeze
      # Whether the C extension is loaded.
      EXTENSION = Native.respond_to?(:transfer)
      private_constant :NATIVE_KINDS, :EXTENSION

      self.keep_gvl = true if ENV["HYPERION_HTTP_KEEP_GVL"] == "1"
      self.sendfile_enabled = false if %w[0 false off no].include?(ENV["HYPERION_HTTP_SENDFILE"]&.downcase)
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
        # Sends a region of a file, and returns when the kernel has accepted all of it. In a non-blocking fiber under a
        # scheduler, the call waits through the scheduler and takes turns with other fibers; elsewhere it waits in C,
        # without the GVL.
        #
        # Every exception that leaves the call after the first byte answers {Progress#bytes_sent}, even one raised by
        # the caller's block, source or destination. The peer then has a part of the response, and the connection must
        # be closed. An exception without that method was raised before the first byte.
        #
        # @param out [IO, Integer, OpenSSL::SSL::SSLSocket, #write] the destination. Bytes that Ruby has buffered for it
        #   are sent first. For an object that only wraps an IO, its own `write` is called.
        # @param file [IO, Integer, #to_io, #pread, #readpartial, #read] the source. The position of a file is neither
        #   used nor moved, therefore threads may send the same File at once.
        # @param offset [Integer] bytes from the start of the file
        # @param len [Integer, nil] bytes; nil: up to the end of the file
        # @param head [String, nil] sent before the region, in the same segment if it fits
        # @param timeout [Numeric, nil, :io] seconds without progress before TimeoutError, not counting waits for a disk
        #   or a file server; nil: for ever; :io: the destination's own `timeout`, if this Ruby has IO#timeout.
        # @yieldparam sent [Integer] bytes of the region sent so far, after each step
        # @return [Integer] bytes of the region sent, without the head: always len
        # @raise [TruncatedError] the file ends before the region
        # @raise [TimeoutError] no byte moved for the given time
        # @raise [SystemCallError] EPIPE or ECONNRESET if the peer is gone, or another error of the kernel; it also
        #   answers {Progress#bytes_sent}
        # @raise [IOError] out or file is closed, or another thread closed it during the call
        # @raise [OpenSSL::SSL::SSLError] OpenSSL reported an error of the connection; it also answers
        #   {Progress#bytes_sent}
        # @raise [ArgumentError, TypeError, RangeError] a bad argument; nothing was written
        # @see https://man7.org/linux/man-pages/man2/sendfile.2.html sendfile(2)
        def copy_to_socket(out, file, offset = 0, len = nil, head: nil, timeout: :io, &progress)
          deliver(nil, out, file, offset, len, head, timeout, progress)
        end

        # Like {copy_to_socket}, but never yields to a fiber scheduler: it blocks the thread.
        #
        # @param (see #copy_to_socket)
        # @yieldparam (see #copy_to_socket)
        # @return (see #copy_to_socket)
        # @raise (see #copy_to_socket)
        def copy_to_socket_blocking(out, file, offset = 0, len = nil, head: nil, timeout: :io, &progress)
          deliver(Waiters::InThread, out, file, offset, len, head, timeout, progress)
        end

        # The kind of route that serves a destination. Only a real IO is native: an object that wraps one may encrypt.
        # The kind stays native if {sendfile_enabled=} has turned sendfile off: C code then reads and writes.
        #
        # @param out [Object] a destination, as for {copy_to_socket}
        # @return [Symbol] :native, :ktls, :tls_userspace or :userspace
        # @raise [TypeError] out cannot be a destination
        def fast_path_kind(out)
          return supported? ? :native : :userspace if IO === out || Integer === out
          return !out.closed? && Native.ktls?(out.to_io) ? :ktls : :tls_userspace if tls?(out)
          return :userspace if Arguments.destination?(out)

          raise TypeError, "out must be an IO, a file descriptor, or answer write, not #{out.class}"
        end

        # Whether responses over {SPLICE_THRESHOLD} are sent by splice(2): this system has it, the kernel has not
        # rejected it, `HYPERION_HTTP_SPLICE=1` asks for it, and sendfile is not turned off.
        #
        # @return [Boolean]
        # @see sendfile_enabled=
        def splice_runtime_supported?
          ENV["HYPERION_HTTP_SPLICE"] == "1" && splice_supported? && !Native.splice_marked_unsupported? &&
            sendfile_enabled?
        end

        # Counters of this process; a forked process starts with those of its parent. They are not read at one instant:
        # a response may be counted before its bytes are.
        #
        # - `responses`: responses sent completely, by route. A call of {copy_to_socket} is one response, and so is a
        #   call of {copy_data_frames} with `end_stream`, and a {FileBody} with any number of regions.
        # - `bytes`: bytes of regions, by route, including those of failed responses. The routes are :small, :sendfile,
        #   :splice, :memory, :ktls, :tls_userspace, :userspace, and :frames (DATA frames to plain descriptors).
        # - `waits`: how often a write returned EAGAIN. Fibers rarely see one, because they already wait after every
        #   partial write, and those waits are not counted.
        # - `fallbacks`: changes to another route because the kernel rejected one.
        # - `timeouts`, `truncations`: how often {TimeoutError} and {TruncatedError} were raised.
        #
        # @return [Hash{Symbol=>Hash, Integer}]
        def stats
          Stats.snapshot
        end

        # Sends a region that is not the last of its response: {stats} counts only its bytes.
        # @api private
        def copy_part(out, file, offset, len, head:, timeout:)
          take_turns(by_route(Waiters.current, nil, out, file, offset, len, head, timeout, nil, ends_response: false))
        end

        # @api private
        def tls?(out)
          defined?(OpenSSL::SSL::SSLSocket) ? OpenSSL::SSL::SSLSocket === out : false
        end

        private

        # From one IO to another, which is the most frequent case, everything happens in C. All other calls, and those
        # with a block for progress, check their arguments and take a route.
        #
        # @param waiter [Module, nil] nil: the one that suits the calling thread or fiber
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

          sent = by_route(waiter || Waiters.current, moved, out, file, offset, len, head, timeout, progress)
          take_turns(sent, waiter)
        end

        def count_cut_short(sent, len, error)
          return unless Integer === len

          Stats.response(len > SMALL_FILE_THRESHOLD ? :sendfile : :small, sent, false, error)
        end

        # A call that never had to wait lets other fibers run here, once enough bytes have been sent by such calls.
        def take_turns(sent, waiter = nil)
          Native.turn_due?(sent) ? take_turn(waiter, sent) : sent
        end

        def take_turn(waiter, len)
          Waiters::InFiber.pause(0) if waiter.nil? && Waiters.under_scheduler?
          len
        rescue Exception => e
          raise Progress.tell(e, len, len)
        end

        # @param moved [Integer, nil] bytes of head and region that have been sent; nil: nothing was tried
        # @param ends_response [Boolean] whether this is the last, or only, region of its response
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

        # @param moved [Integer, nil, true] bytes of head and region that have been sent; true: all of them
        def of_body(moved, head, len)
          return moved ? len : 0 unless Integer === moved

          [moved - head.to_s.bytesize, 0].max
        end

        def own_timeout(out)
          io = tls?(out) ? out.to_io : out
          io.timeout if IO === io && io.respond_to?(:timeout)
        end

        # Sends the bytes that Ruby has buffered for the destination; they come before the region.
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
