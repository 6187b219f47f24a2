# frozen_string_literal: true

# To a TLS connection that OpenSSL encrypts in userspace: whole records.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module TlsRoute
        # The plaintext of one record, which is what OpenSSL accepts per call (RFC 8446, 5.1).
        RECORD = 16 * 1024

        # A step that reads and encrypts records in C.
        class Records
          # C code can read only a descriptor. Only OpenSSL's own methods are known not to wait, and not to keep the
          # buffer.
          def self.serve?(transfer)
            EXTENSION && (IO === transfer.file || Integer === transfer.file || transfer.file.nil?) &&
              openssls?(transfer.out)
          end

          def self.openssls?(ssl)
            ssl.method(:write_nonblock).owner.equal?(OpenSSL::Buffering) &&
              ssl.method(:syswrite_nonblock).owner.equal?(OpenSSL::SSL::SSLSocket)
          end
          private_class_method :openssls?

          # @return [Boolean] as {Loop.run}: false: the source has no offsets, or cannot be read in an event loop
          def self.run(transfer, waiter)
            return false unless waiter.prepare(transfer)

            step = new(transfer.out, transfer.io)
            Loop.run(transfer, waiter, step)
          ensure
            step&.release
          end

          def initialize(ssl, io)
            @ssl = ssl
            @io = io
            @buffer = String.new(capacity: RECORD)
          end

          # Frees the buffer while it is still in the processor's cache: the next call gets the same memory from malloc.
          def release
            @buffer.clear
          end

          def call(transfer)
            transfer.apart_from_peer { transfer.uninterrupted { send_records(transfer) } }
          end

          private

          def send_records(transfer)
            Native.send_records(@ssl, @io, transfer.file, transfer.position, transfer.remaining, transfer.head,
                                transfer.head_sent, @buffer, transfer.frames, transfer.report?) do |bytes, in_doubt|
              transfer.in_doubt = in_doubt
              transfer.advance_through_head(bytes)
            end
          end
        end
        private_constant :Records

        # Whether the Ruby side of OpenSSL has nothing buffered for the connection. It has no method for that; if its
        # buffer cannot be read, the caller must flush. Sync mode does not help: an interrupted write leaves its rest in
        # the buffer.
        def self.flushed?(ssl)
          held = ssl.instance_variable_get(:@wbuffer)
          held ? String === held && held.empty? : ssl.sync
        end

        # @return [true]
        def self.run(transfer, waiter)
          transfer.route = :tls_userspace
          # OpenSSL writes each record separately, without MSG_MORE, and most records end in a short segment. Under
          # Nagle's algorithm this segment would wait for the acknowledgement of the previous one, which the peer may
          # delay by 40 ms.
          Native.without_nagle(transfer.io) do
            (Records.serve?(transfer) && Records.run(transfer, waiter)) ||
              UserspaceRoute.from_memory(transfer, waiter)
          end
        end
      end
    end
  end
end
