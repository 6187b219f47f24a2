# frozen_string_literal: true

# A request and its response: chooses the output for the body.
require_relative "output"

module Hyperion
  module Http
    module Sendfile
      # Requests and their responses.
      module HTTP2
        # async-http's request, except that a response that no client waits for any more is closed without an error.
        class Request < Async::HTTP::Protocol::HTTP2::Request
          # @param response [::Protocol::HTTP::Response, nil]
          def send_response(response)
            return response&.close if @stream.closed?

            @stream.trailed = response.headers.fields.assoc("trailer") if response
            response.close if response&.not_modified? # content-length would be the file's, not 0 (RFC 9110, 8.6)
            super
          rescue EOFError, Errno::EPIPE, Errno::ECONNRESET => e # the client is gone
            response&.close(e)
          end
        end

        # async-http's stream, with outputs of our own.
        class Stream < Async::HTTP::Protocol::HTTP2::Request::Stream
          def initialize(*)
            super
            @request = Request.new(self)
          end

          def add_header(key, *, **)
            AsyncHTTP.keep_range(@headers) if key == "range"
            super
          end

          # A client can also make the server reset a stream, by an invalid frame.
          def send_reset_stream(code = ::Protocol::HTTP2::Error::NO_ERROR)
            @connection.stream_was_reset unless code == ::Protocol::HTTP2::Error::NO_ERROR
            super
          end

          # Whether the response announces trailers.
          attr_writer :trailed

          # @param body [::Protocol::HTTP::Body::Readable]
          # @param trailer [Enumerator, nil]
          def send_body(body, trailer = nil)
            return body.close if closed? # closed while the head was sent: the output would never be told

            regions = regions_of(body)
            @connection.ordinary[self] = true unless regions
            @output = regions ? Output.new(self, body, regions, trailer) : OrdinaryOutput.new(self, body, trailer)
            @output.start
          end

          def closed(error)
            @connection.ordinary.delete(self)
            super
          end

          # The output calls this after its last frame.
          def end_stream
            return if closed?

            @output = nil
            @state == :open ? @state = :half_closed_local : close!
          end

          # The output calls this after {end_stream}, when frames can be written again. It resets the stream if the app
          # did not read the request body to its end.
          def settle
            close_if_finished
          end

          # The output calls this if it cannot go on.
          def give_up
            @output = nil
            send_reset_stream(::Protocol::HTTP2::Error::INTERNAL_ERROR)
          end

          def finish_output(error = nil)
            @connection.shield(Async::Task.current) { super }
          end

          private

          # @return [FileBody, nil] nil: another body, or an empty one
          def regions_of(body)
            return unless @connection.direct?

            bare = @trailed ? body : AsyncHTTP.unwrapped(body) # a wrapper may add trailers when it is closed
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
