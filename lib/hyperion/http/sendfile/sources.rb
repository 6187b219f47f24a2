# frozen_string_literal: true

# The sources that a region is read from if the kernel cannot move it by itself.
module Hyperion
  module Http
    module Sendfile
      # Each source answers `read(length, offset, buffer)`: up to length bytes into the buffer, which
      # stays empty at the end of the source.
      # @api private
      module Sources
        # The IO or descriptor that the kernel can read from, as far as that can be told without a system call; else
        # nil. An object with a read method of its own, but none that takes offsets, may decode the file
        # (Zlib::GzipReader).
        # @return [IO, Integer, nil]
        def self.descriptor(file, offset)
          if IO === file || Integer === file
            require_start(offset) if offset.positive? && stream?(file)
            return file
          end
          return unless file.respond_to?(:to_io)
          return if !file.respond_to?(:pread) && (file.respond_to?(:read) || file.respond_to?(:readpartial))

          io = file.to_io
          io if IO === io && ReadAhead.regular_size(io)
        end

        # A file that can be read at any offset.
        # @return [IO, Integer]
        def self.positioned(file)
          source = descriptor(file, 0)
          return source if source && !stream?(source)

          raise TypeError, "source must be a file, a String or an IO::Buffer, not #{file.class}"
        end

        # nil: only reading finds the end (a pipe, a file of /proc).
        # @return [Integer, nil] bytes
        def self.length_to_end(source, offset)
          size = ReadAhead.regular_size(source)
          return if size.nil? || size.zero?

          [size - offset, 0].max
        end

        # @param source [IO, Integer, #pread, #readpartial, #read]
        # @param offset [Integer] where the region begins
        # @param length [Integer, nil] of the region; nil: its end is not known
        def self.for(source, offset, length)
          source = File.for_fd(source, autoclose: false) if Integer === source
          return Positioned.new(source, offset + (length || 0)) if source.respond_to?(:pread) && !stream?(source)
          return InMemory.new(source) if defined?(StringIO) && StringIO === source

          require_start(offset)
          return Stream.new(source, :readpartial) if source.respond_to?(:readpartial)
          return Stream.new(source, :read) if source.respond_to?(:read)

          raise TypeError, "file must be an IO, a file descriptor, or answer pread or read, not #{source.class}"
        end

        # An IO without offsets: a pipe, a socket, a terminal.
        def self.stream?(source)
          return false unless (IO === source || Integer === source) && ReadAhead.regular_size(source).nil?

          io = Integer === source ? IO.for_fd(source, autoclose: false) : source
          io.stat.pipe? || io.stat.socket? || io.tty?
        end

        def self.require_start(offset)
          return if offset.zero?

          raise ArgumentError, "offset must be 0 for a file that can only be read from where it stands, not #{offset}"
        end
        private_class_method :stream?, :require_start

        # Puts the data into the buffer if the source has returned another String.
        def self.take(data, length, buffer)
          return buffer.clear if data.nil?
          if data.bytesize > length
            raise IOError,
                  "file: returned #{data.bytesize} bytes where #{length} were asked for"
          end

          buffer.replace(data) unless data.equal?(buffer)
          buffer.force_encoding(Encoding::BINARY)
        end

        # A source that is read at absolute offsets; its position does not move.
        class Positioned
          # The most attempts of a read that is always interrupted.
          TRIES = 100
          # JRuby's pread truncates an offset to 32 bits, and would read from another place.
          REACH = RUBY_ENGINE == "jruby" ? 2**31 : 2**63
          private_constant :TRIES, :REACH

          # @param region_end [Integer] checked first, so that a region that cannot be read completely is not begun
          # @raise [RangeError]
          def initialize(source, region_end)
            require_reach(region_end)
            @source = source
          end

          def read(length, offset, buffer)
            require_reach(offset + length)
            tries ||= 0
            Sources.take(@source.pread(length, offset, buffer), length, buffer)
          rescue Errno::EINTR
            (tries += 1) < TRIES ? retry : raise
          rescue EOFError
            buffer.clear
          end

          private

          def require_reach(position)
            raise RangeError, "file: pread has no offset beyond #{REACH} here: #{position}" if position > REACH
          end
        end

        # A StringIO without pread, as in older versions.
        class InMemory
          def initialize(source)
            @source = source
          end

          def read(length, offset, buffer)
            Sources.take(@source.string.byteslice(offset, length), length, buffer)
          end
        end

        # A source that is read from its current position, as far as it has data.
        class Stream
          # @return [IO, nil] the IO to wait on until there is data
          attr_reader :io

          def initialize(source, reader)
            @source = source
            @reader = reader
            @io = source if IO === source
          end

          def read(length, _offset, buffer)
            Sources.take(@source.public_send(@reader, length, buffer), length, buffer)
          rescue EOFError
            buffer.clear
          end
        end
      end
    end
  end
end
