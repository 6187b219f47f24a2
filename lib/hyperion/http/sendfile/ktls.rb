# frozen_string_literal: true

# Kernel TLS: if the kernel encrypts the data sent on the socket below an SSLSocket, the routes of a plain socket use
# that socket, with guards against the pitfalls of the TLS layer.
module Hyperion
  module Http
    # Kernel TLS: the public methods.
    module Sendfile
      class << self
        # Enables kernel TLS for connections of this context: OpenSSL asks the kernel at each handshake. Call this
        # before the context is first used, because that freezes it.
        #
        # @param ssl_context [OpenSSL::SSL::SSLContext]
        # @return [Boolean] whether this OpenSSL (3.0 or later) has the option, and this gem can use it. A build of
        #   OpenSSL without kernel TLS also accepts the option, and the kernel can refuse: {ktls?} says for each
        #   connection whether kernel TLS is on.
        # @raise [FrozenError] the context has been used already
        # @see https://docs.openssl.org/3.0/man3/SSL_CTX_set_options/ SSL_CTX_set_options(3), SSL_OP_ENABLE_KTLS
        def enable_ktls(ssl_context)
          return false unless Native.ktls_compiled? && defined?(OpenSSL::SSL::OP_ENABLE_KTLS)

          ssl_context.options |= OpenSSL::SSL::OP_ENABLE_KTLS
          true
        end

        # Asks the kernel whether it encrypts the data sent on this connection.
        #
        # @param ssl [OpenSSL::SSL::SSLSocket, Object]
        # @return [Boolean] also false before the handshake, for a closed connection, and for an object that is not an
        #   SSLSocket
        # @see https://docs.kernel.org/networking/tls.html
        def ktls?(ssl)
          tls?(ssl) && fast_path_kind(ssl) == :ktls
        end
      end

      # @api private
      module Ktls
        # Whether Ruby has nothing buffered for the connection. An SSLSocket has no method for that; if its buffer
        # cannot be read, the caller must flush.
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

          # Counted as :ktls, whichever native route is set.
          def route=(_way)
            super(:ktls)
          end

          # The bytes that the kernel encrypts in one call before other fibers get their turn.
          def step_length
            next_chunk(STEP)
          end

          # Always :ktls: see {route=}.
          def route
            :ktls
          end

          # For a peer that is gone, the kernel would accept bytes for ever, without an error.
          def look_for_hangup
            Native.ktls_writable?(out)
          end

          # Closes the record, because it may have been kept open for more data.
          def end_here
            ended = super
            close_record if ended
            ended
          end

          # Runs the routes. However they end, no byte that was sent with MSG_MORE stays in an open record that nothing
          # would close. If the file is truncated, its bytes are drained like those of a whole file.
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
            nil # closed: nothing is left to flush
          end

          # While the TCP buffer is full, records wait above TCP, where a close would discard them. Nagle's algorithm
          # may get the last of them only after the transfer has pushed; therefore push once more.
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
