# frozen_string_literal: true

# Whatever an example opens or starts is undone after it, newest first, however it ended.
module Cleanup
  @pending = []

  class << self
    def later(&block)
      @pending.push(block)
    end

    # Closes +io+ after the example; returns it.
    def close(io)
      later { io.close unless io.closed? }
      io
    end

    def run
      while (block = @pending.pop)
        begin
          block.call
        rescue IOError, SystemCallError, OpenSSL::SSL::SSLError
          next # half-closed and reset sockets are what the examples are about
        end
      end
    end
  end
end
