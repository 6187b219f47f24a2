# frozen_string_literal: true

# Says which argument of a façade call is wrong, and why, before anything is written.
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

        module_function

        # @return [Symbol] what {Sendfile.fast_path_kind} says of out
        def check(out, file, offset, len, head, timeout)
          kind = Sendfile.fast_path_kind(out) # or a TypeError
          raise IOError, "out: closed stream" if (IO === out || Sendfile.tls?(out)) && out.closed?
          raise TypeError, "file must not be nil" if file.nil?

          check_descriptor("out", out)
          check_descriptor("file", file)
          check_bytes("offset", offset)
          unless len.nil?
            check_bytes("len", len)
            raise RangeError, "offset plus len is beyond the largest file offset" if offset + len > LAST_OFFSET
          end
          raise TypeError, "head must be a String, not #{head.class}" unless head.nil? || String === head

          check_timeout(timeout)
          kind
        end

        # @return [Symbol] as {check}
        def check_frames(out, source, offset, len, stream_id, max_frame_size, padding, head, timeout)
          raise TypeError, "len must be an Integer, not nil" if len.nil?

          check_frame(max_frame_size, padding)
          check_between("stream_id", stream_id, 1, LAST_STREAM)
          check(out, source, offset, len, head, timeout)
        end

        def check_frame(max_frame_size, padding)
          check_between("max_frame_size", max_frame_size, DATA_FRAME_SIZE, LARGEST_FRAME)
          check_between("padding", padding, 0, LARGEST_PADDING)
        end

        def check_between(name, value, least, most)
          raise TypeError, "#{name} must be an Integer, not #{value.class}" unless Integer === value
          raise ArgumentError, "#{name} must be #{least} to #{most}, not #{value}" unless value.between?(least, most)
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

        def check_timeout(timeout)
          return if timeout.nil? || timeout == :io
          unless Numeric === timeout && timeout.real?
            raise TypeError, "timeout must be a real Numeric, not #{timeout.inspect}"
          end
          raise ArgumentError, "timeout must not be negative: #{timeout}" unless timeout >= 0
        end
      end
    end
  end
end
