# frozen_string_literal: true

# Sends the file bodies of a connection, in turns.
module Hyperion
  module Http
    module Sendfile
      module HTTP2
        # One task for all outputs of a connection, because they wait for the same socket and often for the same window.
        # Other tasks write to the connection between turns.
        class Sender
          # Frames per turn if other streams are waiting (TURN) or none is (ALONE). FRAME is the minimum of
          # SETTINGS_MAX_FRAME_SIZE, which every client accepts.
          TURN = 4
          ALONE = 15
          FRAME = 16_384
          HEADER = 9
          # How often within its timeout an output is checked for room.
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
            # If the connection is encrypted, a frame with its header fills one record.
            frame = connection.encrypted? ? FRAME - HEADER : FRAME
            @turn = TURN * frame
            @alone = ALONE * frame
          end

          # Adds an output to those that get turns.
          #
          # @param output [Output]
          def add(output)
            @outputs << output
            @look = 0 if output.timeout
            @task ? wake : @parent.async(transient: true) { |task| run(task) }
          end

          # Removes an output. If it is having a turn, the turn is completed.
          #
          # @param output [Output]
          def drop(output)
            over(output) if @outputs.delete(output)
          end

          # Called when a window may have grown.
          def wake
            return unless @waiting

            fiber = @waiting
            @waiting = nil
            Fiber.scheduler.unblock(self, fiber)
          end

          # Runs the block in a task of its own, and then checks the outputs again.
          def beside
            @parent.async(transient: true) do
              yield
            ensure
              wake
            end
          end

          # Ends the task, even during a turn: the IO is about to be closed, and would never wake the task.
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

          # Tasks waiting for the write lock run when it is released; the reader task needs an explicit yield.
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

          # Resets the stream. If the client accepts not even that, the connection is closed.
          def give_up(task, output, error)
            over(output, error)
            return if Errno::EPIPE === error || Errno::ECONNRESET === error # the client is gone

            AsyncHTTP::Failures.log(self, error)
            task.with_timeout(output.timeout || HTTP2::TIMEOUT) { output.reset }
          rescue Async::TimeoutError, Progress::Carrier
            @connection.shut_down
          end

          # An error here comes from the body of the app.
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
