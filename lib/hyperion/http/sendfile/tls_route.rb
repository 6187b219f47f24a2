# frozen_string_literal: true

# To a TLS connection that encrypts in userspace: whole records.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module TlsRoute
        # The plaintext of one record: OpenSSL takes as much per call (RFC 8446, 5.1).
        RECORD = 16 * 1024

        # A step that reads and encrypts records in C.
        class Records
          # Only a descriptor can be read there; and only of OpenSSL's own methods is it known that they
          # neither wait nor keep what they are given.
          def self.serve?(transfer)
            EXTENSION && (IO === transfer.file || Integer === transfer.file || transfer.file.nil?) &&
              openssls?(transfer.out)
          end

          def self.openssls?(ssl)
            ssl.method(:write_nonblock).owner.equal?(OpenSSL::Buffering) &&
              ssl.method(:syswrite_nonblock).owner.equal?(OpenSSL::SSL::SSLSocket)
          end
          private_class_method :openssls?

          # @return [Boolean] as {Loop.run}: false when the source turns out to have no offsets, or can't be read in an
          #   event loop
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

          # Back to malloc while it is still in the processor's cache: the next call will get it.
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

        # Whether OpenSSL's Ruby side holds nothing back for the connection. It tells nowhere; where its
        # buffer can't be seen, it is to be flushed. In sync mode, too, a write that was interrupted leaves
        # its rest there.
        def self.flushed?(ssl)
          held = ssl.instance_variable_get(:@wbuffer)
          held ? String === held && held.empty? : ssl.sync
        end

        # @return [true]
        def self.run(transfer, waiter)
          transfer.route = :tls_userspace
          # OpenSSL writes each record by itself, without MSG_MORE, and most end in a short segment: under Nagle's
          # algorithm that would wait for the acknowledgement of the one before, which the peer may delay by 40 ms.
          Native.without_nagle(transfer.io) do
            (Records.serve?(transfer) && Records.run(transfer, waiter)) ||
              UserspaceRoute.from_memory(transfer, waiter)
          end
        end
      end
    end
  end
end
