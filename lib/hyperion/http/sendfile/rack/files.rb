# frozen_string_literal: true

# A Rack app that serves the files below a directory, as RFC 9110 has it. Reads as a request goes: method,
# path, file, preconditions, ranges, body.
module Hyperion
  module Http
    module Sendfile
      # Constructed as Rack::Files, to stand in its place. A file is opened once, and its size, its validators
      # and its bytes all come from that descriptor: a file that is replaced by rename(2) meanwhile is served
      # as the old one or as the new one. Who writes into a file in place gets no such promise.
      #
      #   run Hyperion::Http::Sendfile::Files.new("public", { "cache-control" => "public" }, precompressed: true)
      #
      # GET, HEAD and OPTIONS; 404 for what is no regular file, 403 for what may not be read. Of Range only
      # what is well-formed counts; several ranges come as multipart/byteranges.
      class Files
        METHODS = %w[GET HEAD OPTIONS].freeze
        # Suffix of a file's name by content coding, in the order of preference.
        CODINGS = { "br" => ".br", "gzip" => ".gz" }.freeze
        # A body up to this many bytes goes to the server as one String, which it can write together with the
        # head.
        IN_MEMORY = 32 * 1024
        # Bytes of a list in a request header; a longer one is as a malformed one.
        FIELD_MAX = 8 * 1024
        # Files whose headers are remembered.
        REMEMBERED = 1024
        # What an application can't say of every file alike.
        COMPUTED = %w[accept-ranges content-encoding content-length content-range etag last-modified
                      transfer-encoding].freeze
        REASONS = { 400 => "Bad Request", 403 => "Forbidden", 404 => "Not Found", 405 => "Method Not Allowed",
                    406 => "Not Acceptable", 412 => "Precondition Failed", 416 => "Range Not Satisfiable" }.freeze
        # Not an Array: of that, servers would tell the length, which is not that of the file.
        NO_BODY = Class.new do
          def each; end

          # Falcon sends what it does not know to be empty in chunks, behind a 304 too.
          def empty?
            true
          end
        end.new.freeze
        private_constant :METHODS, :CODINGS, :IN_MEMORY, :FIELD_MAX, :REMEMBERED, :COMPUTED, :REASONS, :NO_BODY

        # @return [String, nil] the directory, absolute
        def root
          @root&.path
        end

        # @param root [String, nil] a directory; nil: only {#serving} will be called
        # @param headers [Hash{String => String}, nil] sent with every file; the names are put in lower case
        # @param default_type [String, nil] content type for names of unknown extension; nil: none is sent
        # @param symlinks [Symbol] :inside: symbolic links are followed as long as they end below the root;
        #   :follow: wherever they lead, as Rack::Files does; :refuse: no link below the root is followed. (The
        #   root itself may be one.) What is not followed is not found.
        # @param etag [Array<Symbol>, false] of what the entity tag is made, of :inode, :size, :mtime (in ns).
        #   Where several machines serve copies, leave out what differs among them. false: no entity tag
        # @param precompressed [Array<String>, Boolean] of "br" and "gzip", which to look for beside a file, as
        #   NAME.br and NAME.gz; true: both. They are taken to be of the file as it is now.
        # @param max_ranges [Integer] a Range with more than these is ignored
        # @param max_overlaps [Integer] a Range with more ranges that overlap one before is ignored; up to so many
        #   are sent as one range
        # @param timeout [Numeric, nil] seconds without a byte until a client is given up, where the body goes
        #   straight to the socket; nil is for ever
        # @raise [ArgumentError] an option has no such value, or headers names one that is a file's own
        def initialize(root, headers = {}, default_type = "text/plain", symlinks: :inside,
                       etag: %i[inode size mtime], precompressed: false, max_ranges: 16, max_overlaps: 2, timeout: 30)
          @codings = codings(precompressed)
          @fields = fields(headers || {})
          @default_type = default_type
          @root = Root.new(root, one_of(Root::POLICIES.keys, symlinks, "symlinks")) if root
          @etag_parts = (etag || nil)&.each { |part| one_of(Representation::ETAG_PARTS, part, "etag") }
          @max_ranges = max_ranges
          @max_overlaps = max_overlaps
          @timeout = timeout
          @lock = Mutex.new
          @known = [nil, *@codings.keys].to_h { |coding| [coding, {}] }
        end

        # @param env [Hash] Rack's environment
        # @return [Array(Integer, Hash, #each)]
        def call(env)
          method = env["REQUEST_METHOD"]
          return not_allowed(method) unless METHODS.include?(method)

          return options if method == "OPTIONS" && server_itself?(env)

          # Of "http://host" Falcon makes no path.
          path = RequestPath.resolve(env["PATH_INFO"] || "")
          return path.nil? ? not_found(method) : refuse(400, method) unless path

          negotiate(env, method, path)
        rescue Errno::EACCES, Errno::EPERM
          refuse(403, method)
        end

        # Serves one file, wherever it is: the path is the application's, and is not looked at.
        #
        # @param request [Hash, #env] Rack's environment, or a Rack::Request
        # @param path [String] of the file
        # @return [Array(Integer, Hash, #each)] as {#call}
        def serving(request, path)
          env = request.respond_to?(:env) ? request.env : request
          method = env["REQUEST_METHOD"]
          serve(env, method, Root.open(path), path, path, nil) || not_found(method)
        rescue Errno::EACCES, Errno::EPERM
          refuse(403, method)
        end

        private

        # Of "*" unicorn makes an empty path.
        def server_itself?(env)
          env["PATH_INFO"] == "*" || env["REQUEST_URI"] == "*"
        end

        def one_of(values, value, name)
          return value if values.include?(value)

          raise ArgumentError, "#{name} can be #{values.map(&:inspect).join(", ")}, not #{value.inspect}"
        end

        def codings(precompressed)
          return {} unless precompressed
          return CODINGS if precompressed == true

          precompressed.to_h { |coding| [coding, CODINGS.fetch(one_of(CODINGS.keys, coding, "precompressed"))] }
        end

        def fields(headers)
          fields = headers.to_h { |name, value| [name.downcase.freeze, value] }
          computed = fields.keys & COMPUTED
          raise ArgumentError, "headers can't say #{computed.join(", ")}: it is the file's" unless computed.empty?

          fields["vary"] = [*fields["vary"], "accept-encoding"].join(", ") unless @codings.empty?
          fields.freeze
        end

        # By which of its forms the file is served (RFC 9110, 12.5.3).
        def negotiate(env, method, path)
          return identity(env, method, path) || not_found(method) if @codings.empty? || method == "OPTIONS"

          accepted = AcceptEncoding.rank(env["HTTP_ACCEPT_ENCODING"], @codings.keys)
          accepted.each do |coding|
            suffix = @codings[coding]
            response = suffix ? sibling(env, method, path, coding, suffix) : identity(env, method, path)
            return response if response
          end
          accepted.include?(AcceptEncoding::IDENTITY) ? not_found(method) : not_acceptable(env, method, path)
        end

        def identity(env, method, path)
          serve(env, method, @root.open(path), path, path, nil)
        end

        def sibling(env, method, path, coding, suffix)
          name = path + suffix
          serve(env, method, @root.open_if_there(name), name, path, coding)
        end

        def not_acceptable(env, method, path)
          response = identity(env, method, path)
          return not_found(method) unless response

          response.last.close if response.last.respond_to?(:close)
          refuse(406, method, "vary" => @fields["vary"])
        end

        # @param found [Array, nil] as {Root.open}; a file is closed, unless the body owns it
        # @param path [String] of that file
        # @param name [String] what the client calls it
        # @return [Array, nil] nil: there is nothing
        def serve(env, method, found, path, name, coding)
          return unless found

          source, *facts = found
          response = respond(env, method, source, representation(facts, path, name, coding))
          kept = FileBody === response.last
          response
        ensure
          source.close if File === source && !kept
        end

        def representation(facts, path, name, coding)
          by_path = @known[coding]
          known = by_path[path]
          return known if known&.of?(*facts)

          type = ContentTypes.of(name, @default_type)
          remember(by_path, path, Representation.new(*facts, type, coding, @etag_parts, @fields))
        end

        def remember(by_path, path, representation)
          @lock.synchronize do
            by_path.clear if by_path.size >= REMEMBERED
            by_path[path] = representation
          end
        end

        # @param source [String, File] the whole file, or one that is open
        def respond(env, method, source, representation)
          return options if method == "OPTIONS"

          case Preconditions.status(env, representation)
          when 304 then [304, representation.not_modified_headers.dup, NO_BODY]
          when 412 then refuse(412, method)
          else
            return [200, representation.headers.dup, NO_BODY] if method == "HEAD"

            ranges = ranges(env, representation)
            ranges ? partial(env, source, representation, ranges) : whole(env, source, representation)
          end
        end

        # @return [Array, nil] nil: the file is to be sent whole
        def ranges(env, representation)
          field = env["HTTP_RANGE"]
          return unless field && Preconditions.range_applies?(env["HTTP_IF_RANGE"], representation)

          ByteRanges.parse(field, representation.size, max_ranges: @max_ranges, max_overlaps: @max_overlaps)
        end

        def whole(env, source, representation)
          [200, representation.headers.dup, body(env, source, 0, representation.size)]
        end

        def partial(env, source, representation, ranges)
          return refuse(416, "GET", "content-range" => "bytes */#{representation.size}") if ranges.empty?

          headers = representation.headers.dup
          return several(env, source, representation, ranges, headers) if ranges.size > 1

          offset, length = ranges.first
          headers["content-length"] = length.to_s
          headers["content-range"] = ByteRanges.content_range(ranges.first, representation.size)
          [206, headers, body(env, source, offset, length)]
        end

        def several(env, source, representation, ranges, headers)
          multipart = Multipart.new(ranges, representation)
          headers["content-type"] = multipart.content_type
          headers["content-length"] = multipart.bytesize.to_s
          [206, headers, String === source ? multipart.in(source) : file_body(env, source, multipart.segments)]
        end

        def body(env, source, offset, length)
          return [] if length.zero?
          return [length == source.bytesize ? source : source.byteslice(offset, length)] if String === source

          (read(source, offset, length) if length <= IN_MEMORY) || file_body(env, source, [[offset, length]])
        end

        # @return [Array<String>, nil] nil: not to be had in one go
        def read(file, offset, length)
          content = file.pread(length, offset)
          [content] if content.bytesize == length
        rescue EOFError, Errno::EINTR
          nil
        end

        def file_body(env, file, segments)
          FileBody.new(file, segments, destination: ServerSocket.for(env), timeout: @timeout)
        end

        def options
          [200, { "allow" => METHODS.join(", "), "content-length" => "0" }, []]
        end

        def not_found(method)
          refuse(404, method, "x-cascade" => "pass")
        end

        def not_allowed(method)
          refuse(405, method, "allow" => METHODS.join(", "), "x-cascade" => "pass")
        end

        def refuse(status, method, headers = {})
          text = "#{REASONS.fetch(status)}\n"
          headers = { "content-type" => "text/plain", "content-length" => text.bytesize.to_s }.merge!(headers)
          [status, headers, method == "HEAD" ? NO_BODY : [text]]
        end
      end
    end
  end
end

require_relative "files/request_path"
require_relative "files/root"
require_relative "files/http_date"
require_relative "files/content_types"
require_relative "files/accept_encoding"
require_relative "files/representation"
require_relative "files/preconditions"
require_relative "files/byte_ranges"
require_relative "files/multipart"

module Hyperion
  module Http
    module Sendfile
      # The app: see above.
      class Files
        private_constant :RequestPath, :Root, :HttpDate, :ContentTypes, :AcceptEncoding, :Representation,
                         :Preconditions, :ByteRanges, :Multipart
      end
    end
  end
end
