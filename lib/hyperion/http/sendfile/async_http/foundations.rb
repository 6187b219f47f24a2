# frozen_string_literal: true

# Names the private parts of other gems that ours build on. `rake foundations` prints which of them have changed in the
# bundle.
require "async/http/version"
require "protocol/http/version"
require "protocol/http1/version"
require "protocol/http2/version"
require_relative "foundation"

module Hyperion
  module Http
    module Sendfile
      module AsyncHTTP
        # For a method that is only called, the value is its arity. For one that is overridden or replaced, it is the
        # digests of the sources that we know: if a release leaves the method unchanged, nothing changes here.
        module Foundations
          # In older versions of protocol-http2, a client can end the process with 18 KB of CONTINUATION frames.
          SAFE = Gem::Version.new("0.23")
          private_constant :SAFE

          STREAM = Foundation.new(
            "sending files by async-http", { "IO::Stream::VERSION" => [">= 0.6", "< 1"] },
            {
              "IO::Stream::Buffered.wrap" => -2,
              "IO::Stream::Buffered#flush" => "a5f20943626c",
              "IO::Stream::Buffered#drain" => "f9a2a8a8982a",
              "IO::Stream::Buffered#syswrite" => 1
            }
          )

          HTTP1 = Foundation.new(
            "sending files by Falcon's HTTP/1", { "Protocol::HTTP1::VERSION" => [">= 0.34", "< 1"] },
            {
              "Protocol::HTTP1::Connection#read_headers" => 0,
              "Protocol::HTTP1::Connection#write_response" => -4,
              "Protocol::HTTP1::Connection#write_connection_header" => 1,
              "Protocol::HTTP1::Connection#write_body" => "6b2076b40932",
              "Protocol::HTTP1::Connection#write_fixed_length_body" => "8c50a6773550 3855cdc2e6f3 f8b1b3c53490",
              "Protocol::HTTP1::Connection#send_end_stream!" => "af10f19fa142"
            },
            below: STREAM
          )

          RACK = Foundation.new(
            "sending the files of Rack apps by async-http", { "Protocol::Rack::VERSION" => [">= 0.11", "< 1"] },
            {
              "Protocol::Rack::Body::Enumerable#initialize" => "bbfe6a73859f",
              "Protocol::Rack::Body::Enumerable#body" => "cf0f889500d0"
            }
          )

          HTTP2 = Foundation.new(
            "sending files by HTTP/2",
            { "Async::HTTP::VERSION" => ["< 1"], "Protocol::HTTP::VERSION" => ["< 1"],
              "Protocol::HTTP2::VERSION" => [">= #{SAFE}", "< 1"] },
            {
              "Async::HTTP::Protocol::HTTP2::Server#initialize" => "7c922210fd48",
              "Async::HTTP::Protocol::HTTP2::Server#accept_stream" => "77935b10f362",
              "Async::HTTP::Protocol::HTTP2::Server#each" => "16201169907f",
              "Async::HTTP::Protocol::HTTP2::Connection#initialize" => "45ea8d63a571",
              "Async::HTTP::Protocol::HTTP2::Connection#synchronize" => "b9b6cc2b4a58",
              "Async::HTTP::Protocol::HTTP2::Connection#write_frame" => "f0b39d61c1db",
              "Async::HTTP::Protocol::HTTP2::Connection#write_frames" => "a6b076736c70",
              "Async::HTTP::Protocol::HTTP2::Connection#close" => "addd4db63a0c",
              "Async::HTTP::Protocol::HTTP2::Connection#read_in_background" => "daa9340b43c8",
              "Async::HTTP::Protocol::HTTP2::Stream#initialize" => "e6e7cb5cf16e",
              "Async::HTTP::Protocol::HTTP2::Stream#add_header" => -3,
              "Async::HTTP::Protocol::HTTP2::Stream#send_body" => "d9d43270326c",
              "Async::HTTP::Protocol::HTTP2::Stream#finish_output" => "1cd4255328df",
              "Async::HTTP::Protocol::HTTP2::Stream#window_updated" => "d0d356d64ff1",
              "Async::HTTP::Protocol::HTTP2::Stream#closed" => "cd2920334f40",
              "Async::HTTP::Protocol::HTTP2::Stream#close_if_finished" => "b52364b79de3",
              "Async::HTTP::Protocol::HTTP2::Request#initialize" => "4f45795ea4c9",
              "Async::HTTP::Protocol::HTTP2::Request#send_response" => "5113b12ac2ec",
              "Async::HTTP::Protocol::HTTP2::Request::Stream#initialize" => "e2888deca030",
              "Async::HTTP::Protocol::HTTP2::Request::Stream#closed" => "18958461e0ef",
              "Async::HTTP::Protocol::HTTP2::Output#initialize" => "f8bdd9d4c3cf",
              "Async::HTTP::Protocol::HTTP2::Output#start" => "d4ea21433006",
              "Async::HTTP::Protocol::HTTP2::Output#write" => "9034ea0df4d2",
              "Async::HTTP::Protocol::HTTP2::Output#close_write" => "89720d11ec06",
              "Async::HTTP::Protocol::HTTP2::Output#stop" => "c95ebbc5dce1",
              "Async::HTTP::Protocol::HTTP2::Output#close_stream" => "1e27d1f3834f",
              "Async::HTTP::Protocol::HTTP2::Output#passthrough" => "01e80c6ffaed",
              "Async::HTTP::Protocol::HTTP2::Output#send_data" => "416212e947a2",
              "Protocol::HTTP2::Connection#read_frame" => "74c912e884c2",
              "Protocol::HTTP2::Connection#decode_headers" => 1,
              "Protocol::HTTP2::Connection#close" => "f5c3e4939174",
              "Protocol::HTTP2::Connection#delete" => "12437aec5f8d",
              "Protocol::HTTP2::Connection#create_stream" => "800f8456116d",
              "Protocol::HTTP2::Connection#accept_stream" => "b3add21f8613",
              "Protocol::HTTP2::Connection#write_frame" => "af762a39cca0",
              "Protocol::HTTP2::Connection#write_frames" => "65a6c84ecb79",
              "Protocol::HTTP2::Connection#process_settings" => "91d2eda4275a",
              "Protocol::HTTP2::Connection#update_remote_settings" => "2adc6ba771a2",
              "Protocol::HTTP2::Connection#consume_window" => "e1e6796c21fe",
              "Protocol::HTTP2::Connection#receive_headers" => "be403700d869",
              "Protocol::HTTP2::Connection#receive_reset_stream" => "5c917c155065",
              "Protocol::HTTP2::Connection#receive_window_update" => "97ba0f116dde",
              "Protocol::HTTP2::Stream.create" => "ef913af1f97f",
              "Protocol::HTTP2::Stream#consume_remote_window" => "b340d7858140",
              "Protocol::HTTP2::Stream#close" => "7cb0faefecd4",
              "Protocol::HTTP2::Stream#close!" => "03c238e1e2b5",
              "Protocol::HTTP2::Stream#send_reset_stream" => "9922cbf6cbb4",
              "Protocol::HTTP2::FlowControlled#consume_remote_window" => "08a317036f39",
              "Protocol::HTTP2::Window#consume" => "8821df52258b",
              "Protocol::HTTP2::Window#expand" => "1bf71f1c21d3",
              "Protocol::HTTP::Body::File#initialize" => "8b96a1232da4",
              "Protocol::HTTP::Body::File#read" => "78f8841f0997",
              "Protocol::HTTP::Body::Buffered#initialize" => "cae07ac997c6",
              "Protocol::HTTP::Body::Buffered#read" => "36682777aff1"
            },
            below: STREAM
          )

          # @param connection [#http2?, Object]
          # @return [Boolean] whether the methods for its version of HTTP are unchanged
          def self.known?(connection)
            version = connection.respond_to?(:http2?) && connection.http2? ? HTTP2 : HTTP1
            version.known? && RACK.known?
          end

          # @return [Boolean] whether HTTP/2 must not be served
          def self.unsafe?
            Gem::Version.new(::Protocol::HTTP2::VERSION) < SAFE
          end

          # Warns once if HTTP/2 must not be served.
          #
          # @return [Boolean] whether HTTP/2 must not be served
          def self.refused
            return false unless unsafe?

            why = "protocol-http2 #{::Protocol::HTTP2::VERSION} lets a client end the process with CONTINUATION frames"
            Notice.off("HTTP/2", why, "Clients get HTTP/1.1. Use #{SAFE} or later.")
            true
          end
        end
      end
    end
  end
end
