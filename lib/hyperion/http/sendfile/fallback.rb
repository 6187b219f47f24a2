# frozen_string_literal: true

module Hyperion
  module Http
    # Stands in for the C extension where it could not be built: the questions have their answers, the
    # primitives say that they are missing, and everything goes through userspace.
    module Sendfile
      class << self
        # @return [Boolean] false: there is no extension
        def supported?
          false
        end

        # @return [Boolean] false: there is no extension
        def splice_supported?
          false
        end

        # @return [Symbol] :unsupported
        def platform_tag
          :unsupported
        end

        # @return [Integer] bytes
        def small_file_threshold
          64 * 1024
        end

        # @return [Symbol] :noop
        def fadvise_sequential(_file, _len, _offset = 0)
          :noop
        end

        # @return [nil]
        def mark_splice_unsupported!; end

        # Without effect: there is no call that would give the GVL up.
        def keep_gvl=(keep); end

        # @return [Boolean] false
        def keep_gvl?
          false
        end

        %i[copy copy_small copy_splice copy_splice_into_pipe].each do |name|
          define_method(name) do |*|
            raise NotImplementedError, "Hyperion::Http::Sendfile.#{name} needs the C extension, which was not built"
          end
        end
      end

      # The little of it that the façade needs.
      # @api private
      module Native
        def self.plain?(_out, _file, _offset, _len, _head, _timeout)
          false
        end

        def self.copy_at_once(_out, _file, _offset, _len, _head, _timeout); end

        # JRuby takes 0 seconds for no limit.
        def self.wait(io, writable, seconds)
          seconds = [seconds, 0.001].max if seconds
          Waiters.without_scheduler { !(writable ? io.wait_writable(seconds) : io.wait_readable(seconds)).nil? }
        end

        def self.regular_size(file)
          io = file.is_a?(Integer) ? IO.for_fd(file, autoclose: false) : file.to_io
          io.flush if File === io && io.stat.writable? && !io.sync
          io.stat.size if io.stat.file?
        end

        def self.open_cached(_root, _path, _links); end

        def self.resident?(_file, _offset, _len)
          true
        end

        COUNTERS = Hash.new(0)
        COUNTERS_MUTEX = Mutex.new
        private_constant :COUNTERS, :COUNTERS_MUTEX

        def self.count(counter, by)
          COUNTERS_MUTEX.synchronize { COUNTERS[counter] += by }
        end

        def self.counted(counter)
          COUNTERS_MUTEX.synchronize { COUNTERS[counter] }
        end

        def self.queued(_io)
          -1
        end

        def self.ktls_compiled?
          false
        end

        def self.ktls?(_io)
          false
        end

        def self.nagle_off(socket)
          return false unless defined?(BasicSocket) && BasicSocket === socket

          !socket.getsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY).bool &&
            socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1).zero?
        rescue Errno::EOPNOTSUPP, Errno::ENOPROTOOPT, Errno::EINVAL
          false # not TCP
        end

        def self.nagle_on(socket)
          socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 0)
        rescue Errno::EINVAL, Errno::ENOTCONN, Errno::ECONNRESET
          nil # what some systems say of a connection that is gone; the write has said so already
        end

        def self.without_sigpipe
          yield
        end

        def self.flushed?(out)
          out.sync && out.flush && true
        end

        def self.descriptor(out)
          out.fileno
        end

        def self.splice_marked_unsupported?
          true
        end
      end
      private_constant :Native
    end
  end
end
