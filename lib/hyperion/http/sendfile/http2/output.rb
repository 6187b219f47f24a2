# frozen_string_literal: true

# What a stream sends its response's body by.
require_relative "sender"

module Hyperion
  module Http
    module Sendfile
      # Outputs, and who gives them turns.
      module HTTP2
        # Async-http's, except that a frame is never cut, where stopping the task would lose what is buffered, and that
        # no task is left behind.
        class OrdinaryOutput < Async::HTTP::Protocol::HTTP2::Output
          def start(...)
            super
            stop(nil) if @stream&.closed? # which was before there was a task to be stopped
          end

          private

          def send_data(stream, *)
            stream.connection.shield(Async::Task.current) { super }
          end
        end

        # Sends regions of a file as DATA frames, when the {Sender} gives it a turn. For flow control the frames of a
        # turn are one: it answers length and end_stream?.
        class Output
          # Bytes, no less than a turn sends.
          AHEAD = 256 * 1024
          private_constant :AHEAD

          # @return [Enumerator, nil] fields to send behind the body
          attr_reader :trailer

          # @return [Integer] bytes of window that this turn may use
          attr_reader :length

          # @return [Numeric, nil] seconds
          attr_reader :timeout

          # @param stream [Stream]
          # @param body [::Protocol::HTTP::Body::Readable] to be closed in the end
          # @param regions [FileBody] what it stands for
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

          # Called by the stream, as the following two.
          def start
            @connection.sender.add(self)
          end

          # A window may have grown.
          def window_updated(_size)
            @connection.sender.wake
            true
          end

          # The stream has been closed.
          def stop(_error)
            @connection.sender.drop(self)
          end

          # The same, without an error.
          def close_stream
            @connection.sender.drop(self)
          end

          # @return [Boolean] whether the windows have room, and what is to fill it need not be read from a disk
          def room?
            room.positive? && at_hand?
          end

          # @return [Boolean] whether it has been sent, or won't be
          def over?
            @left.zero? || @stream.closed?
          end

          # @return [Boolean] whether the last frame of this turn ends the stream
          def end_stream?
            @last
          end

          # Sends up to that many bytes, if there is still room when others have written what they had.
          #
          # @param task [Async::Task] the current one; not stopped before a frame is whole
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
          # @param head [String, nil] goes out before them
          def copy_to(io, head: nil)
            Sendfile.copy_data_frames(io, @source, @offset + @sent, @length,
                                      stream_id: @stream.id, max_frame_size: @connection.maximum_frame_size,
                                      end_stream: @last, head: head, timeout: @timeout)
          end

          # @param time [Float]
          # @return [Boolean] whether there has been no room for too long
          def starved?(time)
            return @since = false if room.positive?

            @since ||= time
            @timeout ? time - @since >= @timeout : false
          end

          # @return [TimeoutError]
          def timed_out
            TimeoutError.new(@total - @left, @total, @timeout, torn: false)
          end

          # Tells the client that there won't be any more.
          def reset
            @stream.give_up unless @stream.closed?
          end

          # @param error [Exception, nil] why it was not sent
          def close(error = nil)
            @body.close(error)
          end

          private

          # A turn has the connection to itself. Therefore none begins that would have to wait for a disk: what comes
          # next is read in before, beside the sender.
          def at_hand?
            return false if @reading
            return true if over?

            find_region
            return true if String === @source

            from = @offset + @sent
            length = [@size - @sent, AHEAD].min
            return true if from + length <= @at_hand || Native.resident?(@file, from, length)

            read_in(from, length)
            !@reading # it may be over already, and then nobody wakes the sender
          rescue IOError # it is closed, as the turn will see
            true
          end

          def read_in(from, length)
            @reading = true
            @connection.sender.beside do
              ReadAhead.warm(@file, from, length)
            ensure
              @reading = false
              @at_hand = from + length # or it can't be known; then the turn sees to it
            end
          end

          # Where it goes on: in a String, or in the file.
          def find_region
            while @size.nil? || @sent == @size
              segment = @segments[@index]
              @index += 1
              @sent = 0
              @source, @offset, @size = String === segment ? [segment, 0, segment.bytesize] : [@file, *segment]
            end
          end

          # Room is taken before others can think that it is theirs, and given back where a file has ended before.
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
