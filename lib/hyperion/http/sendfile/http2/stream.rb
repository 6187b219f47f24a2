# frozen_string_literal: true

# A request and its response: which output the body gets.
require_relative "output"

module Hyperion
  module Http
    module Sendfile
      # Requests, and what is answered.
      module HTTP2
        # Async-http's, except that a response that nobody waits for any more is closed, and not an error.
        class Request < Async::HTTP::Protocol::HTTP2::Request
          # @param response [::Protocol::HTTP::Response, nil]
          def send_response(response)
            return response&.close if @stream.closed?

            @stream.trailed = response.headers.fields.assoc("trailer") if response
            response.close if response&.not_modified? # its content-length would be the file's, not 0 (RFC 9110, 8.6)
            super
          rescue EOFError, Errno::EPIPE, Errno::ECONNRESET => e # the client is gone
            response&.close(e)
          end
        end

        # Async-http's, with outputs of our own.
        class Stream < Async::HTTP::Protocol::HTTP2::Request::Stream
          def initialize(*)
            super
            @request = Request.new(self)
          end

          def add_header(key, *, **)
            AsyncHTTP.keep_range(@headers) if key == "range"
            super
          end

          # A client can have a stream reset, too: by a frame that is wrong for it.
          def send_reset_stream(code = ::Protocol::HTTP2::Error::NO_ERROR)
            @connection.stream_was_reset unless code == ::Protocol::HTTP2::Error::NO_ERROR
            super
          end

          # Whether the response says that fields will follow its body.
          attr_writer :trailed

          # @param body [::Protocol::HTTP::Body::Readable]
          # @param trailer [Enumerator, nil]
          def send_body(body, trailer = nil)
            return body.close if closed? # while the head was sent: nobody would tell the output

            regions = regions_of(body)
            @connection.ordinary[self] = true unless regions
            @output = regions ? Output.new(self, body, regions, trailer) : OrdinaryOutput.new(self, body, trailer)
            @output.start
          end

          def closed(error)
            @connection.ordinary.delete(self)
            super
          end

          # Called by the output when it has sent the last frame.
          def end_stream
            return if closed?

            @output = nil
            @state == :open ? @state = :half_closed_local : close!
          end

          # Called by the output after that, when frames can be written again: resets the stream of a request whose body
          # the app did not read to its end.
          def settle
            close_if_finished
          end

          # Called by the output when it can't go on.
          def give_up
            @output = nil
            send_reset_stream(::Protocol::HTTP2::Error::INTERNAL_ERROR)
          end

          def finish_output(error = nil)
            @connection.shield(Async::Task.current) { super }
          end

          private

          # @return [FileBody, nil] nil: something else, or empty
          def regions_of(body)
            return unless @connection.direct?

            bare = @trailed ? body : AsyncHTTP.unwrapped(body) # a wrapper may add them when it is closed
            regions = file(bare) || AsyncHTTP.regions_of(bare) || strings(bare)
            return unless regions&.bytesize&.positive?

            regions if bare.length.nil? || bare.length == regions.bytesize
          end

          def file(body)
            return unless body.instance_of?(::Protocol::HTTP::Body::File) && ::File === body.file
            return unless body.instance_variable_get(:@remaining) == body.length # nothing was read

            FileBody.new(body.file, [[body.offset, body.length]], timeout: @connection.timeout)
          end

          def strings(body)
            return unless body.instance_of?(::Protocol::HTTP::Body::Buffered) && body.chunks.all?(String)
            return unless body.instance_variable_get(:@index).zero? # nothing was read

            FileBody.new(nil, body.chunks, timeout: @connection.timeout)
          end
        end
        private_constant :Request, :Stream
      end
    end
  end
end
