# frozen_string_literal: true

# Servers of the folder of payloads by HTTP/2, each started once per run.
require_relative "../servers/server_process"

module ServedByHTTP2
  SCRIPT = File.join(__dir__, "server.rb")

  # @param protocol [String] stock, http2 or falcon
  # @param options [Array<String>] tls
  # @return [ServerProcess]
  def self.server(protocol, *options, timeout: 30)
    (@servers ||= {})[[protocol, *options, timeout]] ||=
      ServerProcess.command(SCRIPT, "PORT", protocol, Payload.dir, *options,
                            environment: { "TIMEOUT" => timeout.to_s, "CONSOLE_LEVEL" => "fatal" })
  end
end
