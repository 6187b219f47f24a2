# frozen_string_literal: true

# Says which argument of a façade call is wrong, and why, before anything is written. The error is a TypeError or
# RangeError for source, destination and region, and an ArgumentError for an option.
module Hyperion
  module Http
    module Sendfile
      # @api private
      module Arguments
        # The largest offset a file can have.
        LAST_OFFSET = (2**63) - 1
        # A C int.
        LAST_DESCRIPTOR = (2**31) - 1
        # The largest stream identifier, payload and padding of a frame (RFC 9113, 4.1, 4.2 and 6.1).
        LAST_STREAM = (2**31) - 1
        LARGEST_FRAME = (2**24) - 1
        LARGEST_PADDING = 255
        # A source responds to one of these.
        READERS = %i[to_io pread readpartial read].freeze
        private_constant :READERS

        module_function

        # @return [Symbol] the result of {Sendfile.fast_path_kind} for out
        def check(out, file, offset, len, head, timeout)
          check_source(file)
          check_transfer(out, "file", file, offset, len, head, timeout)
        end

        # @return [Symbol] as {check}
        def check_frames(out, source, offset, len, head, timeout, stream_id:, max_frame_size:, padding:, end_stream:)
          raise TypeError, "len must be an Integer, not nil" if len.nil?

          check_frame(max_frame_size, padding)
          check_between("stream_id", stream_id, 1, LAST_STREAM)
          check_boolean("end_stream", end_stream)
          check_transfer(out, "source", source, offset, len, head, timeout)
        end

        def check_transfer(out, name, file, offset, len, head, timeout)
          kind = Sendfile.fast_path_kind(out) # or a TypeError
          raise IOError, "out: closed stream" if (IO === out || Sendfile.tls?(out)) && out.closed?

          check_descriptor("out", out)
          check_descriptor(name, file)
          check_bytes("offset", offset)
          unless len.nil?
            check_bytes("len", len)
            raise RangeError, "offset plus len is beyond the largest file offset" if offset + len > LAST_OFFSET
          end
          raise TypeError, "head must be a String, not #{head.class}" unless head.nil? || String === head

          check_timeout(timeout)
          kind
        end

        def check_frame(max_frame_size, padding)
          check_between("max_frame_size", max_frame_size, DATA_FRAME_SIZE, LARGEST_FRAME)
          check_between("padding", padding, 0, LARGEST_PADDING)
        end

        def check_between(name, value, least, most)
          return if Integer === value && value.between?(least, most)

          raise ArgumentError, "#{name} must be an Integer from #{least} to #{most}, not #{value.inspect}"
        end

        def check_boolean(name, value)
          return if value.nil? || value.equal?(true) || value.equal?(false)

          raise ArgumentError, "#{name} must be true or false, not #{value.inspect}"
        end

        def check_descriptor(name, value)
          return unless Integer === value
          raise ArgumentError, "#{name}: a file descriptor can't be negative: #{value}" if value.negative?
          raise RangeError, "#{name}: #{value} is no file descriptor" if value > LAST_DESCRIPTOR
        end

        def check_bytes(name, value)
          raise TypeError, "#{name} must be an Integer, not #{value.class}" unless Integer === value
          raise ArgumentError, "#{name} must not be negative: #{value}" if value.negative?
          raise RangeError, "#{name} is beyond the largest file offset: #{value}" if value > LAST_OFFSET
        end

        # The object itself is asked, because ActiveSupport's `30.seconds` claims to be a Numeric, and behaves like one.
        #
        # @param others [Array] values that are allowed although they are not numbers
        def check_timeout(timeout, others: [nil, :io])
          return if others.include?(timeout)
          return if timeout.is_a?(Numeric) && timeout.real? && timeout >= 0

          allowed = others.map { |other| ", or #{other.inspect}" }.join
          raise ArgumentError, "timeout must be a number of seconds, 0 or more#{allowed}, not #{timeout.inspect}"
        end

        # Whether the object is a stream that can be written to. Other objects also have a `write`: that of a Pathname,
        # and of the classes IO and File, overwrites the named file; that of an IO::Buffer writes the buffer itself.
        def destination?(object)
          object.respond_to?(:write) && !opens_by_name?(object) && !buffer?(object)
        end

        def check_source(file)
          if opens_by_name?(file)
            raise TypeError, "file must be an open file, not #{file.class}: File.new(name, \"rb\") opens one"
          end
          return if Integer === file || (READERS.any? { |way| file.respond_to?(way) } && !buffer?(file))

          raise TypeError, "file must be an IO, a file descriptor, or answer pread or read, not #{file.class}"
        end

        # A path also has read and write, but no close.
        def opens_by_name?(object)
          return object <= IO || false if Class === object

          object.respond_to?(:to_path) && !object.respond_to?(:close)
        end

        def buffer?(object)
          defined?(IO::Buffer) ? IO::Buffer === object : false
        end
        private_class_method :check_transfer, :check_source, :check_boolean, :opens_by_name?, :buffer?
      end
    end
  end
end
