# frozen_string_literal: true

# A request and its response: which output the body gets.
require_relative "output"

module Hyperion
  module Http
    module Sendfile
      # Requests, and what is answered.
      module HTTP2
        # Async-http's, except that what can't be sent is closed.
        class Request < Async::HTTP::Protocol::HTTP2::Request
          # @param response [::Protocol::HTTP::Response, nil]
          def send_response(response)
            return response&.close if @stream.closed? # the client doesn't wait for it any more

            @stream.trailed = response.headers.fields.assoc("trailer") if response
            response.close if response&.not_modified? # its content-length would be the file's, not 0 (RFC 9110, 8.6)
            super
          ensure
            response&.close unless @stream.answered?
          end
        end

        # Async-http's, with outputs of our own.
        class Stream < Async::HTTP::Protocol::HTTP2::Request::Stream
          def initialize(*)
            super
            @request = Request.new(self)
          end

          # Whether the response says that fields will follow its body.
          attr_writer :trailed

          # @return [Boolean] whether the response's body is, or was, an output's to close
          def answered?
            @answered
          end

          # @param body [::Protocol::HTTP::Body::Readable]
          # @param trailer [Enumerator, nil]
          def send_body(body, trailer = nil)
            @answered = true
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

          # Called by the output when it can't go on.
          def give_up
            @output = nil
            send_reset_stream(::Protocol::HTTP2::INTERNAL_ERROR)
          end

          def finish_output(error = nil)
            @connection.shield(Async::Task.current) { super }
          end

          private

          # @return [FileBody, nil] nil: something else, or empty
          def regions_of(body)
            return unless @connection.direct?

            bare = @trailed ? body : AsyncHTTP.uncovered(body) # the covering may add them when it is closed
            regions = file(bare) || AsyncHTTP.regions_of(bare) || AsyncHTTP.strings_of(bare, @connection.timeout)
            return unless regions&.bytesize&.positive?

            regions if bare.length.nil? || bare.length == regions.bytesize
          end

          def file(body)
            return unless body.instance_of?(::Protocol::HTTP::Body::File) && ::File === body.file
            return unless body.instance_variable_get(:@remaining) == body.length # nothing was read

            FileBody.new(body.file, [[body.offset, body.length]], timeout: @connection.timeout)
          end
        end
        private_constant :Request, :Stream
      end
    end
  end
end
