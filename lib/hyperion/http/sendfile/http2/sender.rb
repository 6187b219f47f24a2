# frozen_string_literal: true

# Sends the file bodies of a connection, in turns.
module Hyperion
  module Http
    module Sendfile
      module HTTP2
        # One task for all outputs of a connection, since what they wait for is the same socket and, often, the same
        # window. Whoever else writes to the connection does so between turns.
        class Sender
          # Frames of a turn where others have something to send, too, and where nobody has: of the smallest size that
          # a client may set a limit to, which all do.
          TURN = 4
          ALONE = 15
          FRAME = 16_384
          HEADER = 9
          # How often within its timeout it is looked whether an output has room.
          LOOKS = 4
          private_constant :TURN, :ALONE, :FRAME, :HEADER, :LOOKS

          # @param connection [Server]
          # @param parent [Async::Task] the connection's
          def initialize(connection, parent)
            @connection = connection
            @parent = parent
            @outputs = []
            @unbroken = 0
            @look = Float::INFINITY
            # Where it is encrypted, frames with their headers fill whole records, which are as large.
            frame = connection.encrypted? ? FRAME - HEADER : FRAME
            @turn = TURN * frame
            @alone = ALONE * frame
          end

          # Sends what the output has, from now on.
          #
          # @param output [Output]
          def add(output)
            @outputs << output
            @look = 0 if output.timeout
            @task ? wake : @parent.async(transient: true) { |task| run(task) }
          end

          # Sends no more of the output; a turn that it is having comes to its end.
          #
          # @param output [Output]
          def drop(output)
            over(output) if @outputs.delete(output)
          end

          # Called where a window may have grown.
          def wake
            return unless @waiting

            fiber = @waiting
            @waiting = nil
            Fiber.scheduler.unblock(self, fiber)
          end

          # Runs the block in a task of its own, and looks at the outputs again after it.
          def beside
            @parent.async(transient: true) do
              yield
            ensure
              wake
            end
          end

          # Ends it, in a turn too: the IO is about to be closed, and would never wake the task.
          def close
            @connection.end_task(@task) if @task
          end

          private

          def run(task)
            @task = task
            task.annotate("Sending files.")
            loop do
              give_up_starved(task)
              output = next_output
              next wait unless output

              serve(task, output)
              let_others_run(output.length)
            end
          ensure
            @task = nil
            @outputs.each { |output| over(output) }.clear
          end

          def next_output
            return unless @connection.available_size.positive?

            index = @outputs.index(&:room?)
            @outputs.delete_at(index) if index
          end

          def serve(task, output)
            output.take_turn(task, contended? ? @turn : @alone)
            output.over? ? over(output) : @outputs << output
          rescue StandardError => e
            give_up(task, output, e)
          rescue Async::Stop
            over(output)
            raise
          end

          # Those that wait to write need not be let; the reader does.
          def let_others_run(bytes)
            @unbroken += bytes
            return if @unbroken < @alone

            @unbroken = 0
            Fiber.scheduler.yield
          end

          def contended?
            @connection.awaited? || @outputs.any?(&:room?)
          end

          def wait
            @waiting = Fiber.current
            Fiber.scheduler.block(self, @look.infinite? ? nil : [@look - now, 0].max)
          ensure
            @waiting = nil
          end

          def give_up_starved(task)
            return if (time = now) < @look

            timeouts = @outputs.filter_map(&:timeout)
            @look = timeouts.empty? ? Float::INFINITY : time + timeouts.min.fdiv(LOOKS)
            @outputs.select { |output| output.starved?(time) }.each do |output|
              give_up(task, output, output.timed_out) if @outputs.delete(output)
            end
          end

          # Tells the client that there won't be any more, unless it has no ear for that either.
          def give_up(task, output, error)
            over(output, error)
            return if Errno::EPIPE === error || Errno::ECONNRESET === error # the client is gone

            AsyncHTTP::Failures.log(self, error)
            task.with_timeout(output.timeout || HTTP2::TIMEOUT) { output.reset }
          rescue Async::TimeoutError, Progress::Carrier
            @connection.shut_down
          end

          # An error in there is the app's.
          def over(output, error = nil)
            output.close(error)
          rescue StandardError => e
            Console.error(self, "A body could not be closed.", exception: e)
          end

          def now
            Process.clock_gettime(Process::CLOCK_MONOTONIC)
          end
        end
        private_constant :Sender
      end
    end
  end
end
