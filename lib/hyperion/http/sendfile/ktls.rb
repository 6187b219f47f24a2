# frozen_string_literal: true

# Kernel TLS: where the kernel encrypts what is sent on the socket below an SSLSocket, that socket is
# handed to the routes of a plain one, between guards against what the TLS layer does to its user.
module Hyperion
  module Http
    # Kernel TLS: what a caller asks of it.
    module Sendfile
      class << self
        # Lets connections of this context encrypt in the kernel, where that can: OpenSSL asks it at each
        # handshake. Call it before the context is first used, which freezes it.
        #
        # @param ssl_context [OpenSSL::SSL::SSLContext]
        # @return [Boolean] whether this OpenSSL (3.0 or later) has the option and this gem would use it.
        #   A build of OpenSSL without kernel TLS takes the option all the same, and the kernel has a say,
        #   too: what came of it, {ktls?} tells of each connection.
        # @raise [FrozenError] the context has been used already
        # @see https://docs.openssl.org/3.0/man3/SSL_CTX_set_options/ SSL_CTX_set_options(3), SSL_OP_ENABLE_KTLS
        def enable_ktls(ssl_context)
          return false unless Native.ktls_compiled? && defined?(OpenSSL::SSL::OP_ENABLE_KTLS)

          ssl_context.options |= OpenSSL::SSL::OP_ENABLE_KTLS
          true
        end

        # Whether the kernel encrypts what is sent on this connection, asked of the kernel.
        #
        # @param ssl [OpenSSL::SSL::SSLSocket, Object]
        # @return [Boolean] false also before the handshake, for a closed connection, and for what is no
        #   SSLSocket
        # @see https://docs.kernel.org/networking/tls.html
        def ktls?(ssl)
          tls?(ssl) && fast_path_kind(ssl) == :ktls
        end
      end

      # @api private
      module Ktls
        # Whether Ruby holds nothing back for the connection. An SSLSocket tells that of its buffer nowhere;
        # where it can't be seen, it is to be flushed.
        def self.flushed?(ssl)
          TlsRoute.flushed?(ssl) && Native.flushed?(ssl.to_io)
        end

        # A transfer to the socket below the connection.
        class Transfer < Sendfile::Transfer
          STEP = 1024 * 1024
          private_constant :STEP

          def begin_with(ssl, *rest)
            super(ssl.to_io, *rest)
          end
          private :begin_with

          def ktls?
            true
          end

          # Whichever of the native ways it is.
          def route=(_way)
            super(:ktls)
          end

          # What the kernel encrypts in one call before other fibers get their turn.
          def step_length
            next_chunk(STEP)
          end

          # Whichever of them the bytes take.
          def route
            :ktls
          end

          # The kernel takes bytes for a peer that is gone, for ever, without an error.
          def look_for_hangup
            Native.ktls_writable?(out)
          end

          # The record may have been kept open for more.
          def end_here
            ended = super
            close_record if ended
            ended
          end

          # Runs the routes. However they end, no byte that was sent with MSG_MORE stays behind in a record
          # that nothing would close; and what a file had before its end is let go of as a whole file is.
          def guarded(waiter)
            look_for_hangup
            yield
            drain(waiter)
            drained = true
          rescue TruncatedError
            close_record
            drain(waiter)
            raise
          ensure
            close_record unless drained
          end

          private

          def close_record
            Native.ktls_close_record(out)
            Native.push(out, false)
          rescue IOError
            nil # closed, and nothing left to let go of
          end

          # Records wait above TCP while its buffer is full, and there a close would discard them. Nagle's
          # algorithm may have seen the last of them only after the transfer had pushed.
          def drain(waiter)
            Waiters.await(waiter, self, true) until Native.ktls_writable?(out)
            Native.push(out, false)
          end
        end
      end
      private_constant :Ktls
    end
  end
end
