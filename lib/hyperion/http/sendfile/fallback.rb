# frozen_string_literal: true

module Hyperion
  module Http
    # Replaces the C extension if it could not be built: the queries have answers, the primitives raise
    # NotImplementedError, and everything is sent through userspace.
    module Sendfile
      class << self
        # @return [Boolean] false: there is no extension
        def supported?
          false
        end

        # @return [Boolean] false: there is no extension
        def splice_supported?
          false
        end

        # @return [Symbol] :unsupported
        def platform_tag
          :unsupported
        end

        # @return [Integer] bytes
        def small_file_threshold
          64 * 1024
        end

        # @return [Symbol] :noop
        def fadvise_sequential(_file, _len, _offset = 0)
          :noop
        end

        # @return [nil]
        def mark_splice_unsupported!; end

        # No effect: no call here releases the GVL.
        def keep_gvl=(keep); end

        # @return [Boolean] false
        def keep_gvl?
          false
        end

        # No effect: sendfile is never used here.
        def sendfile_enabled=(enabled); end

        # @return [Boolean] false
        def sendfile_enabled?
          false
        end

        %i[copy copy_small copy_splice copy_splice_into_pipe].each do |name|
          define_method(name) do |*|
            raise NotImplementedError, "Hyperion::Http::Sendfile.#{name} needs the C extension, which was not built"
          end
        end
      end

      # The few methods of Native that the façade needs.
      # @api private
      module Native
        def self.copy_at_once(_out, _file, _offset, _len, _head, _timeout, _blocking, &_progress); end

        # Always, because bytes are not counted here.
        def self.turn_due?(_bytes)
          true
        end

        # JRuby treats 0 seconds as no limit.
        def self.wait(io, writable, seconds)
          seconds = [seconds, 0.001].max if seconds
          Waiters.without_scheduler { !(writable ? io.wait_writable(seconds) : io.wait_readable(seconds)).nil? }
        end

        def self.regular_size(file)
          io = file.is_a?(Integer) ? IO.for_fd(file, autoclose: false) : file.to_io
          io.flush if File === io && io.stat.writable? && !io.sync
          io.stat.size if io.stat.file?
        end

        def self.open_below(_root, _path, _links); end

        def self.open_known(_root, _path, _links, *_facts); end

        def self.tells_resident?(_file)
          true
        end

        def self.close(file)
          file.close
        end

        def self.resident?(_file, _offset, _len)
          true
        end

        COUNTERS = Hash.new(0)
        COUNTERS_MUTEX = Mutex.new
        private_constant :COUNTERS, :COUNTERS_MUTEX

        def self.count(counter, by)
          COUNTERS_MUTEX.synchronize { COUNTERS[counter] += by }
        end

        def self.counted(counter)
          COUNTERS_MUTEX.synchronize { COUNTERS[counter] }
        end

        # A region as DATA frames (RFC 9113, 4.1 and 6.1): positions in the stream of their wire bytes.
        class Frames
          HEADER = 9
          END_STREAM = 1
          PADDED = 8
          private_constant :HEADER, :END_STREAM, :PADDED

          # @return [Integer] bytes of the region in a full frame
          attr_reader :payload

          # No shortcut without C.
          def set_small(*)
            false
          end

          # IO::Buffers are not supported without C.
          def self.buffers?
            false
          end

          # @param memory [String, nil] nil: the source is a file, which {read} gets
          # @return [Frames] self
          def set(memory, offset, len, stream_id, max_frame_size, padding, end_stream)
            @memory = memory&.b
            @offset = offset
            @length = len
            @stream_id = stream_id
            @end_stream = end_stream
            @padding = padding
            @prefix = padding.zero? ? HEADER : HEADER + 1
            @payload = max_frame_size - (padding.zero? ? 0 : 1 + padding)
            @full = @payload + @prefix + padding
            @piece = +""
            @source = nil
            raise RangeError, "len is too large for so many frames" if wire_length > Arguments::LAST_OFFSET

            self
          end

          # @return [Integer] bytes of all frames
          def wire_length
            frames = @length.zero? && @end_stream ? 1 : (@length + @payload - 1) / @payload
            @length + (frames * (@prefix + @padding))
          end

          # @return [Integer] bytes of the region before this position
          def region(wire)
            frames, within = wire.divmod(@full)
            [(frames * @payload) + (within - @prefix).clamp(0, @payload), @length].min
          end

          def boundary?(wire)
            (wire % @full).zero? || wire == wire_length
          end

          # Fills the buffer with the next wire bytes: as many whole frames as fit, or a piece of one larger frame. The
          # buffer is empty if the file ends before the next frame does.
          def read(file, wire, room, buffer)
            @source ||= Sources.for(file, @offset, @length) if file
            buffer.clear
            whole = 0
            stop = reach(wire, room)
            until wire == stop
              piece = stretch(wire, stop - wire)
              return buffer.replace(buffer.byteslice(0, whole)) if piece.empty?

              buffer << piece
              wire += piece.bytesize
              whole = buffer.bytesize if boundary?(wire)
            end
            buffer
          end

          def release
            @piece = @memory = @source = nil
          end

          private

          def reach(wire, room)
            stop = [wire_length, wire + room].min
            boundary = boundary?(stop) ? stop : stop - (stop % @full)
            boundary > wire ? boundary : stop
          end

          # The next bytes, up to the end of the current part of a frame; empty at the end of the file.
          def stretch(wire, limit)
            frames, within = wire.divmod(@full)
            start = frames * @payload
            payload = [@payload, @length - start].min
            return prefix(start, payload).byteslice(within, limit) if within < @prefix

            rest = @prefix + payload - within
            return "\0" * [rest + @padding, limit].min unless rest.positive?

            payload_at(@offset + start + within - @prefix, [rest, limit].min)
          end

          def payload_at(offset, length)
            return @memory.byteslice(offset, length) if @memory

            @source.read(length, offset, @piece)
          end

          def prefix(start, payload)
            length = payload + (@padding.zero? ? 0 : 1 + @padding)
            flags = @padding.zero? ? 0 : PADDED
            flags |= END_STREAM if @end_stream && start + payload == @length
            [length >> 16, length & 0xffff, 0, flags, @stream_id, *(@padding unless @padding.zero?)].pack("CnCCNC*")
          end
        end

        def self.queued(_io)
          -1
        end

        def self.ktls_compiled?
          false
        end

        def self.ktls?(_io)
          false
        end

        def self.without_nagle(socket)
          was_on = nagle_off(socket)
          yield
        ensure
          nagle_on(socket) if was_on && !socket.closed?
        end

        def self.nagle_off(socket)
          return false unless defined?(BasicSocket) && BasicSocket === socket

          !socket.getsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY).bool &&
            socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1).zero?
        rescue Errno::EOPNOTSUPP, Errno::ENOPROTOOPT, Errno::EINVAL
          false # not TCP
        end

        def self.nagle_on(socket)
          socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 0)
        rescue Errno::EINVAL, Errno::ENOTCONN, Errno::ECONNRESET
          nil # some systems raise this if the peer is gone; the write has already reported that
        end

        private_class_method :nagle_off, :nagle_on

        def self.without_sigpipe
          yield
        end

        def self.flushed?(out)
          out.sync && out.flush && true
        end

        def self.descriptor(out)
          out.fileno
        end

        def self.splice_marked_unsupported?
          true
        end
      end
      private_constant :Native
    end
  end
end
