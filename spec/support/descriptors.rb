# frozen_string_literal: true

# What a kernel tells of a descriptor, and is told about it. JRuby's own calls wait for the thread that waits on the
# IO, or lack their argument: there libc is asked, by the number.
module Descriptors
  TIOCOUTQ = 0x5411 # bytes not yet taken by the peer (a socket)
  FIONREAD = 0x541B # bytes not yet read (a pipe, from either end)
  F_SETPIPE_SZ = 1031
  BYTES_ACKED = 120 # where struct tcp_info has tcpi_bytes_acked

  # By Ruby.
  module ByRuby
    def writable?(io)
      !IO.select(nil, [io], nil, 0).nil?
    end

    # An int that ioctl(2) answers.
    def ioctl(io, request)
      count = [0].pack("i")
      io.ioctl(request, count)
      count.unpack1("i")
    end

    def shrink_pipe(io, bytes)
      io.fcntl(F_SETPIPE_SZ, bytes)
    end

    def shrink_send_buffer(socket, bytes)
      socket.setsockopt(:SOCKET, :SNDBUF, bytes)
    end

    # By the peer of a TCP connection, which may be dead by now.
    def bytes_acknowledged(socket)
      socket.getsockopt(:TCP, :INFO).data.unpack1("@#{BYTES_ACKED}Q")
    end
  end

  # By libc, for JRuby.
  module ByLibc
    POLLOUT = 4
    TCP_INFO = 11

    def writable?(io)
      FFI::MemoryPointer.new(8) do |pollfd|
        pollfd.put_int(0, io.fileno).put_short(4, POLLOUT)
        return check(LibC.poll(pollfd, 1, 0)).positive?
      end
    end

    def ioctl(io, request)
      FFI::MemoryPointer.new(:int) do |count|
        check(LibC.ioctl(io.fileno, request, count))
        return count.get_int(0)
      end
    end

    def shrink_pipe(io, bytes)
      check(LibC.fcntl(io.fileno, F_SETPIPE_SZ, bytes))
    end

    def shrink_send_buffer(socket, bytes)
      FFI::MemoryPointer.new(:int) do |value|
        value.put_int(0, bytes)
        check(LibC.setsockopt(socket.fileno, Socket::SOL_SOCKET, Socket::SO_SNDBUF, value, value.size))
      end
    end

    def bytes_acknowledged(socket)
      FFI::MemoryPointer.new(BYTES_ACKED + 8) do |info|
        FFI::MemoryPointer.new(:uint32) do |size|
          size.put_uint32(0, info.size)
          check(LibC.getsockopt(socket.fileno, Socket::IPPROTO_TCP, TCP_INFO, info, size))
          return info.get_uint64(BYTES_ACKED)
        end
      end
    end

    def check(result)
      raise SystemCallError.new("libc", FFI.errno) if result.negative?

      result
    end

    if RUBY_ENGINE == "jruby"
      require "ffi"

      # The few calls.
      module LibC
        extend FFI::Library

        ffi_lib FFI::Library::LIBC
        attach_function :poll, %i[pointer ulong int], :int
        attach_function :ioctl, %i[int ulong pointer], :int
        attach_function :fcntl, %i[int int int], :int
        attach_function :setsockopt, %i[int int int pointer uint32], :int
        attach_function :getsockopt, %i[int int int pointer pointer], :int
      end
    end
  end

  extend RUBY_ENGINE == "jruby" ? ByLibc : ByRuby
end
