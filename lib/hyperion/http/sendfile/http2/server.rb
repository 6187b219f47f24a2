# frozen_string_literal: true

# A connection: orders the writes of its streams, and protects a write from being stopped midway.
require_relative "patience"
require_relative "stream"

module Hyperion
  module Http
    module Sendfile
      module HTTP2
        # async-http's connection, with streams that send regions of files.
        class Server < Async::HTTP::Protocol::HTTP2::Server
          # The most bytes of a request's header block, before decoding.
          LARGEST_HEAD = 64 * 1024
          private_constant :LARGEST_HEAD

          # @return [Numeric, nil] see {HTTP2.server}
          attr_reader :timeout

          # @return [Sender] the sender of file bodies
          attr_reader :sender

          # @return [Hash{Stream=>true}] the streams that send any other body
          attr_reader :ordinary

          # @param stream [::IO::Stream::Buffered]
          # @param timeout [Numeric, nil]
          def initialize(stream, timeout)
            super(stream)
            push_every_write
            @timeout = timeout
            @sender = Sender.new(self, Async::Task.current)
            @ordinary = {}.compare_by_identity
            @shielded = []
            @patience = Patience.new
          end

          def create_stream(id = next_stream_id, &block)
            block ? super { Stream.create(self, id) } : super
          end

          # @return [Boolean] whether frames may be written directly to the IO below the stream
          def direct?
            BasicSocket === @stream.io || encrypted?
          end

          # @return [Boolean] whether OpenSSL encrypts the connection
          def encrypted?
            Sendfile.tls?(@stream.io)
          end

          # The IO that a {FileBody} is sent to, for {ServerSocket}. The body never writes there itself.
          #
          # @return [BasicSocket, OpenSSL::SSL::SSLSocket, nil]
          def response_socket
            @stream.io if direct?
          end

          # Writes whole frames between those of other tasks. After a cut frame, nothing else may be written. The same
          # holds if buffered frames before them were lost, because the client would miss a step of header compression.
          #
          # @param frames [#copy_to] writes the frames
          def write_directly(frames)
            if AsyncHTTP::Stream === @stream
              @stream.flush_with(frames)
            else
              @stream.flush
              frames.copy_to(@stream.io)
            end
            whole = true
          rescue Progress => e
            whole = !e.torn? && !(TimeoutError === e) && !(AsyncHTTP::Stream === @stream && @stream.head_lost?)
            raise
          ensure
            shut_down unless whole
          end

          # @return [Boolean] whether another task waits to write
          def awaited?
            !@write_frame_guard.waiting.empty?
          end

          # Runs the block to its end, even if the task is stopped meanwhile, as happens when a client resets the
          # stream. Only {#close} does not wait, because the IO that it closes would never wake the task.
          #
          # @param task [Async::Task] the current one
          def shield(task)
            @shielded << task
            task.defer_stop do
              yield
            ensure
              @shielded.delete(task)
            end
          end

          def close(error = nil)
            @sender.close
            @shielded.dup.each { |task| end_task(task) }
            super
          end

          # Stops the task, even if the task defers stops.
          #
          # @param task [Async::Task]
          def end_task(task)
            task.stop if task.stop == false # a task that defers stops returns false; it does not defer the second one
          end

          # The reader calls this before each frame. It does nothing, because only two kinds of frames enlarge a window,
          # and their methods below use the new room.
          def consume_window(*); end

          def receive_window_update(frame)
            super
            frame.connection? ? use_room : @streams[frame.stream_id]&.window_updated(available_size)
          end

          # Applies the settings before it sends the ACK (RFC 9113, 6.5.3): other tasks may run while the ACK is
          # written, and frames after it must obey the new values.
          def process_settings(frame)
            return super if frame.acknowledgement?

            changes = frame.unpack
            @remote_settings.update(changes)
            update_remote_settings(changes)
            use_room
            write_frame(frame.acknowledge)
            false
          end

          # Ends the connection of a client that resets too many streams, or makes the server reset them.
          def read_frame
            super do |frame|
              @patience.check
              yield frame if block_given?
            end
          rescue Patience::Exhausted => e
            AsyncHTTP::Failures.log(self, e)
            raise
          end

          # One byte of a header block can stand for a field of 4 KiB, and decoding it delays every connection.
          def decode_headers(data)
            return super if data.bytesize <= LARGEST_HEAD

            raise ::Protocol::HTTP2::ProtocolError.new("A header block of #{data.bytesize} bytes is too large.",
                                                       ::Protocol::HTTP2::Error::ENHANCE_YOUR_CALM)
          end

          def receive_reset_stream(frame)
            stream_was_reset if @streams.key?(frame.stream_id)
            super
          end

          # Called for every stream that ends by RST_STREAM, whichever side sends it.
          def stream_was_reset
            @patience.lose
          end

          # Shuts the connection down in both directions. The reader notices that, and closes it.
          def shut_down
            @stream.io.to_io.shutdown
          rescue SystemCallError, IOError
            nil # it has already ended
          end

          private

          def use_room
            return unless available_size.positive?

            @sender.wake
            @ordinary.each_key { |stream| stream.window_updated(available_size) if stream.active? }
          end

          # Turns Nagle's algorithm off, because each write consists of whole frames, which must not be held back.
          def push_every_write
            socket = @stream.io.to_io
            socket.setsockopt(:TCP, :NODELAY, true) if BasicSocket === socket && socket.local_address.ip?
          rescue SystemCallError
            nil # the connection has ended, as the reader will notice
          end
        end
        private_constant :Server
      end
    end
  end
end
