# frozen_string_literal: true

# Outputs: objects that send the body of a stream's response.
require_relative "sender"

module Hyperion
  module Http
    module Sendfile
      # Outputs and their sender.
      module HTTP2
        # async-http's output, with two differences: stopping its task never cuts a frame or loses buffered bytes, and
        # no task is left behind.
        class OrdinaryOutput < Async::HTTP::Protocol::HTTP2::Output
          def start(...)
            super
            stop(nil) if @stream&.closed? # the stream was closed before there was a task to stop
          end

          private

          def send_data(stream, *)
            stream.connection.shield(Async::Task.current) { super }
          end
        end

        # Sends regions of a file as DATA frames when the {Sender} gives it a turn. For flow control, the frames of a
        # turn count as one frame: this object answers length and end_stream?.
        class Output
          # Bytes to read ahead, at least as many as a turn sends.
          AHEAD = 256 * 1024
          private_constant :AHEAD

          # @return [Enumerator, nil] fields to send after the body
          attr_reader :trailer

          # @return [Integer] bytes of window that this turn may use
          attr_reader :length

          # @return [Numeric, nil] seconds
          attr_reader :timeout

          # @param stream [Stream]
          # @param body [::Protocol::HTTP::Body::Readable] is closed at the end
          # @param regions [FileBody] the regions of that body
          # @param trailer [Enumerator, nil]
          def initialize(stream, body, regions, trailer)
            @stream = stream
            @connection = stream.connection
            @body = body
            @file = regions.file
            @segments = regions.segments
            @index = @sent = @length = @at_hand = 0
            @left = @total = regions.bytesize
            @trailer = trailer
            @timeout = regions.timeout
          end

          # The stream calls this and the following three methods.
          def start
            @connection.sender.add(self)
          end

          # Called when a window may have grown.
          def window_updated(_size)
            @connection.sender.wake
            true
          end

          # Called when the stream has been closed.
          def stop(_error)
            @connection.sender.drop(self)
          end

          # Like {stop}, but without an error.
          def close_stream
            @connection.sender.drop(self)
          end

          # @return [Boolean] whether the windows have room, and the next bytes need not be read from a disk
          def room?
            room.positive? && at_hand?
          end

          # @return [Boolean] whether the body has been sent, or cannot be sent any more
          def over?
            @left.zero? || @stream.closed?
          end

          # @return [Boolean] whether the last frame of this turn ends the stream
          def end_stream?
            @last
          end

          # Sends up to limit bytes, if the windows still have room after other tasks have written.
          #
          # @param task [Async::Task] the current task; it is not stopped before a frame is complete
          # @param limit [Integer]
          def take_turn(task, limit)
            @connection.synchronize do
              return if @stream.closed?

              find_region
              @length = [@size - @sent, room, limit].min
              return unless @length.positive?

              task.defer_stop { write }
            end
            return unless @left.zero?

            @last ? @stream.settle : @stream.finish_output
          end

          # Writes the frames of a turn.
          #
          # @param io [BasicSocket, OpenSSL::SSL::SSLSocket]
          # @param head [String, nil] is sent before the frames
          def copy_to(io, head: nil)
            Sendfile.copy_data_frames(io, @source, @offset + @sent, @length,
                                      stream_id: @stream.id, max_frame_size: @connection.maximum_frame_size,
                                      end_stream: @last, head: head, timeout: @timeout)
          end

          # @param time [Float]
          # @return [Boolean] whether the windows have had no room for the timeout
          def starved?(time)
            return @since = false if room.positive?

            @since ||= time
            @timeout ? time - @since >= @timeout : false
          end

          # @return [TimeoutError]
          def timed_out
            TimeoutError.new(@total - @left, @total, @timeout, torn: false)
          end

          # Resets the stream, which tells the client that no more bytes follow.
          def reset
            @stream.give_up unless @stream.closed?
          end

          # @param error [Exception, nil] why the body was not sent
          def close(error = nil)
            @body.close(error)
          end

          private

          # During a turn nothing else is sent on the connection. Therefore no turn begins that would wait for a disk:
          # the next bytes are first read into the page cache by another task.
          def at_hand?
            return false if @reading
            return true if over?

            find_region
            return true if String === @source

            from = @offset + @sent
            length = [@size - @sent, AHEAD].min
            return true if from + length <= @at_hand || Native.resident?(@file, from, length)

            read_in(from, length)
            !@reading # the read may already be over, and then nothing wakes the sender
          rescue IOError # the file is closed; the turn will raise
            true
          end

          def read_in(from, length)
            @reading = true
            @connection.sender.beside do
              ReadAhead.warm(@file, from, length)
            ensure
              @reading = false
              @at_hand = from + length # or that cannot be known; then the turn reads it
            end
          end

          # Finds the next bytes: in a String, or in the file.
          def find_region
            while @size.nil? || @sent == @size
              segment = @segments[@index]
              @index += 1
              @sent = 0
              @source, @offset, @size = String === segment ? [segment, 0, segment.bytesize] : [@file, *segment]
            end
          end

          # Takes room from the windows first, so that no other output counts on it. If the file ends early, the
          # connection gets the unused room back.
          def write
            @last = @length == @left && !@trailer&.any?
            @stream.consume_remote_window(self)
            @connection.write_directly(self)
            @sent += @length
            @left -= @length
            @since = nil
            @stream.end_stream if @last
          rescue Progress => e
            @connection.remote_window.expand(@length - e.bytes_sent)
            @left -= e.bytes_sent
            raise
          end

          def room
            [@stream.available_size, @connection.available_size].min
          end
        end
        private_constant :OrdinaryOutput, :Output
      end
    end
  end
end
