# frozen_string_literal: true

# Converts PATH_INFO to a path below the root, without a look at the file system.
module Hyperion
  module Http
    module Sendfile
      class Files
        # @api private
        module RequestPath
          SEPARATORS = Regexp.union(*[File::SEPARATOR, File::ALT_SEPARATOR].compact)

          # A path without escapes and dot segments.
          NAME = /[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9_~!$&'()*+,;=:@.-]*/
          PLAIN = %r{\A(?:/#{NAME})+\z}
          # Bytes. A path of PATH_MAX can be three times as long if it is encoded.
          LONGEST = 16 * 1024
          private_constant :SEPARATORS, :NAME, :PLAIN, :LONGEST

          # Decodes percent-encoding once, and resolves dot segments. An encoded slash ("%2F") separates names, as for
          # Rack::Files.
          #
          # @param path_info [String] from the server, still encoded
          # @return [String, nil, false] the path with a leading slash, in binary unless it is plain ASCII; nil: it
          #   cannot be a file below the root, because it leaves the root, ends like a directory or is too long; false:
          #   it is malformed (a "%" without two digits, NUL, or invalid UTF-8)
          # @see https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4 RFC 3986, 5.2.4
          def self.resolve(path_info)
            return if path_info.bytesize > LONGEST
            return path_info if path_info.ascii_only? && path_info.match?(PLAIN)

            path = decode(path_info.b)
            return false unless path

            remove_dot_segments(path)
          end

          def self.decode(path)
            return if path.match?(/%(?!\h\h)/n)

            path = path.gsub(/%\h\h/n) { |escape| escape.byteslice(1, 2).hex.chr }
            return if path.include?("\0") || !path.dup.force_encoding(Encoding::UTF_8).valid_encoding?

            path
          end

          def self.remove_dot_segments(path)
            *folders, name = path.split(SEPARATORS, -1)
            return if name.nil? || name.empty? || name == "." || name == ".."

            kept = folders.each_with_object([]) do |folder, path_so_far|
              if folder == ".."
                break if path_so_far.pop.nil?
              elsif !folder.empty? && folder != "."
                path_so_far << folder
              end
            end
            kept && "/#{kept.push(name).join("/")}"
          end
          private_class_method :decode, :remove_dot_segments
        end
      end
    end
  end
end
