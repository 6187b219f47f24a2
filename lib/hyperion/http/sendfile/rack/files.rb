# frozen_string_literal: true

# A Rack app that serves the files below a directory according to RFC 9110. The order is that of a request: method,
# path, file, preconditions, ranges, body.
module Hyperion
  module Http
    module Sendfile
      # Replaces Rack::Files, and is constructed like it. A file is opened once, and its size, its validators and its
      # bytes all come from that descriptor: if a file is replaced by rename(2) meanwhile, clients get the old one or
      # the new one, never a mixture. A file that is written to in place has no such guarantee.
      #
      #   run Hyperion::Http::Sendfile::Files.new("public", { "cache-control" => "public" }, precompressed: true)
      #
      # GET, HEAD and OPTIONS; 404 unless the path is a regular file, 403 if it is not readable. A malformed Range is
      # ignored; several ranges are sent as multipart/byteranges.
      #
      # If the modification time was set by a tool (before 1990, or SOURCE_DATE_EPOCH), a file has no `last-modified`,
      # and its tag is valid on this machine only: see {Identity}.
      class Files
        # The methods with preconditions and ranges.
        READING = %w[GET HEAD].freeze
        # The suffixes of compressed files by content coding, in the order of preference.
        CODINGS = { "br" => ".br", "gzip" => ".gz" }.freeze
        # The server gets a body of up to this many bytes as one String, which it can write together with the head.
        IN_MEMORY = 32 * 1024
        # Bytes of a list in a request header; a longer list counts as malformed.
        FIELD_MAX = 8 * 1024
        # Files whose headers are remembered.
        REMEMBERED = 1024
        # Headers that differ between files, and therefore cannot be given for all of them.
        COMPUTED = %w[accept-ranges content-encoding content-length content-range etag last-modified
                      transfer-encoding].freeze
        private_constant :READING, :CODINGS, :IN_MEMORY, :FIELD_MAX, :REMEMBERED, :COMPUTED

        # @return [String, nil] the directory, absolute
        def root
          @root&.path
        end

        # @param root [String, Pathname, nil] a directory; nil: for {#serving} only
        # @param headers [Hash{String => String, Array<String>}, nil] sent with every file; names are converted to lower
        #   case. Can be given without braces, as to Rack::Files
        # @param default_type [String, nil] content type for names with an unknown extension; nil: none is sent
        # @param symlinks [Symbol] :inside: symbolic links are followed if they end below the root; :follow: all links
        #   are followed, as by Rack::Files; :refuse: no link below the root is followed. (The root itself may be a
        #   link.) A file behind a link that is not followed counts as missing.
        # @param etag [Array<Symbol>, false] the fields that the entity tag is built from: :size, :mtime (in ns) and
        #   :inode. The inode differs between machines, and on some FUSE file systems after each mount. false: no entity
        #   tag
        # @param last_modified [Boolean] false: no date is sent, and dates in requests are not compared; for files that
        #   get the same time at every deployment
        # @param precompressed [Array<String>, Boolean] "br" and "gzip": the codings for which to look for NAME.br and
        #   NAME.gz beside a file; true: both. They are assumed to be up to date.
        # @param max_ranges [Integer] a Range with more ranges is ignored; 0: every Range is. The default is the most
        #   that known clients request: zsync 20, zchunk 255, and dnf's librepo 256
        # @param max_overlaps [Integer] a Range with more ranges that overlap an earlier one is ignored; otherwise
        #   overlapping ranges are merged
        # @param timeout [Numeric, nil] close the connection if the client accepts no byte for this many seconds; nil:
        #   never. Applies only if the body is written directly to the socket
        # @param more [Hash{String => String, Array<String>}] headers that were given without braces
        # @raise [ArgumentError] an option has a wrong value, or headers contains one that Files sets itself
        def initialize(root, headers = {}, default_type = "text/plain", symlinks: :inside, etag: %i[size mtime],
                       last_modified: true, precompressed: false, max_ranges: 256, max_overlaps: 2, timeout: 30, **more)
          @codings = codings(precompressed)
          @fields = fields(headers, more)
          @refusals = Refusals.new((@fields["vary"] unless @codings.empty?))
          @default_type = Options.field("default_type", default_type) unless default_type.nil?
          Options.one_of("symlinks", symlinks, Root::POLICIES.keys)
          @root = Root.new(Options.path("root", root), symlinks) unless root.nil?
          @identity = identity_by(etag, last_modified)
          @max_ranges = Options.count("max_ranges", max_ranges)
          @max_overlaps = Options.count("max_overlaps", max_overlaps)
          @timeout = Options.timeout(timeout)
          @lock = Mutex.new
          @known = [nil, *@codings.keys].to_h { |coding| [coding, {}] }
        end

        # Drops the parts that change: remembered headers, and the content types that the application may still add to
        # Rack's. Therefore `Ractor.make_shareable` makes one app for all Ractors.
        #
        # @return [self]
        def freeze
          return self if frozen?

          @types = ContentTypes.snapshot
          @lock = @known = nil
          super
        end

        # @param env [Hash] Rack's environment
        # @return [Array(Integer, Hash, #each)]
        def call(env)
          method = env["REQUEST_METHOD"]
          return @refusals.not_allowed(method) unless METHODS.include?(method)
          return @refusals.options if method == "OPTIONS" && server_itself?(env)

          # For "http://host", Falcon sets no path.
          path = RequestPath.resolve(env["PATH_INFO"] || "")
          return path.nil? ? @refusals.not_found(method) : @refusals.answer(400, method) unless path

          negotiate(env, method, path)
        rescue Errno::EACCES, Errno::EPERM
          @refusals.answer(403, method)
        rescue Errno::EWOULDBLOCK
          @refusals.leased(method)
        end

        # Serves one file at any place: the application chooses the path, which is not checked. Methods other than GET
        # and HEAD get the whole file, without ranges or a 304.
        #
        # @param request [Hash, #env] Rack's environment, or a Rack::Request
        # @param path [String, Pathname] of the file
        # @return [Array(Integer, Hash, #each)] as {#call}
        def serving(request, path)
          path = Options.path("path", path)
          env = request.respond_to?(:env) ? request.env : request
          method = env["REQUEST_METHOD"]
          serve(env, method, Root.open(path), path, path, nil) || @refusals.not_found(method)
        rescue Errno::EACCES, Errno::EPERM
          @refusals.answer(403, method)
        rescue Errno::EWOULDBLOCK
          @refusals.leased(method)
        end

        private

        # For "*", unicorn sets an empty path.
        def server_itself?(env)
          env["PATH_INFO"] == "*" || env["REQUEST_URI"] == "*"
        end

        def codings(precompressed)
          return {}.freeze unless precompressed
          return CODINGS if precompressed == true

          Options.some_of("precompressed", precompressed, CODINGS.keys)
          CODINGS.slice(*precompressed).freeze
        end

        def identity_by(etag, last_modified)
          Options.one_of("last_modified", last_modified, [true, false])
          parts = Options.some_of("etag", etag, Identity::PARTS).uniq if etag
          raise ArgumentError, "etag must name a fact of the file, or be false, not []" if parts == []

          Identity.new(parts, last_modified, ENV.fetch("SOURCE_DATE_EPOCH", nil))
        end

        def fields(headers, more)
          unknown = more.keys.grep(Symbol)
          raise ArgumentError, "unknown options: #{unknown.map(&:inspect).join(", ")}" unless unknown.empty?

          fields = Options.headers(headers).merge(Options.headers(more))
          computed = fields.keys & COMPUTED
          raise ArgumentError, "headers can't say #{computed.join(", ")}: it is the file's" unless computed.empty?

          fields["vary"] = [*fields["vary"], "accept-encoding"].join(", ").freeze unless @codings.empty?
          fields.freeze
        end

        # Chooses the coding in which the file is served (RFC 9110, 12.5.3).
        def negotiate(env, method, path)
          return identity(env, method, path) || @refusals.not_found(method) if @codings.empty? || method == "OPTIONS"

          accepted = AcceptEncoding.rank(env["HTTP_ACCEPT_ENCODING"], @codings.keys)
          accepted.each do |coding|
            suffix = @codings[coding]
            response = suffix ? sibling(env, method, path, coding, suffix) : identity(env, method, path)
            return response if response
          end
          accepted.include?(AcceptEncoding::IDENTITY) ? @refusals.not_found(method) : not_acceptable(env, method, path)
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
          return @refusals.not_found(method) unless response

          response.last.close if response.last.respond_to?(:close)
          @refusals.answer(406, method)
        end

        # @param found [Array, nil] the result of {Root.open}; the file is closed unless the body owns it
        # @param path [String] of that file
        # @param name [String] the name that the client uses
        # @return [Array, nil] nil: there is no such file
        def serve(env, method, found, path, name, coding)
          return unless found

          source, *facts = found
          response = respond(env, method, source, representation(facts, path, name, coding))
          kept = FileBody === response.last || Unsized === response.last
          response
        ensure
          ReadAhead.close(source) if File === source && !kept
        end

        def representation(facts, path, name, coding)
          by_path = @known&.fetch(coding)
          known = by_path && by_path[path]
          return known if known&.of?(facts)

          type = ContentTypes.of(name, @default_type, @types)
          made = Representation.new(facts, type, coding, @identity, @fields, @max_ranges.positive?)
          by_path ? remember(by_path, path, made) : made
        end

        def remember(by_path, path, representation)
          @lock.synchronize do
            by_path.clear if by_path.size >= REMEMBERED
            by_path[path] = representation
          end
        end

        # @param source [String, File] the content of the file, or the open file
        def respond(env, method, source, representation)
          return @refusals.options if method == "OPTIONS"
          return whole(env, source, representation) unless READING.include?(method)

          case Preconditions.status(env, representation)
          when 304 then not_modified(env, representation)
          when 412 then @refusals.answer(412, method)
          else
            return [200, representation.headers.dup, NO_BODY] if method == "HEAD"

            ranges = ranges(env, representation)
            ranges ? partial(env, source, representation, ranges) : whole(env, source, representation)
          end
        end

        def not_modified(env, representation)
          headers = representation.not_modified_headers.dup
          etag = representation.etag
          headers["etag"] = "W/#{etag}" if Preconditions.only_weakly_named?(env["HTTP_IF_NONE_MATCH"], etag)
          [304, headers, NO_BODY]
        end

        # @return [Array, nil] nil: send the whole file
        def ranges(env, representation)
          field = env["HTTP_RANGE"]
          return unless field && representation.size
          return unless Preconditions.range_applies?(env["HTTP_IF_RANGE"], representation)

          ByteRanges.parse(field, representation.size, max_ranges: @max_ranges, max_overlaps: @max_overlaps)
        end

        def whole(env, source, representation)
          size = representation.size
          [200, representation.headers.dup, size ? body(env, source, 0, size) : Unsized.new(source)]
        end

        def partial(env, source, representation, ranges)
          return @refusals.answer(416, "GET", "content-range" => "bytes */#{representation.size}") if ranges.empty?

          headers = representation.headers.dup
          keep_as_it_is(env, headers)
          return several(env, source, representation, ranges, headers) if ranges.size > 1

          offset, length = ranges.first
          headers["content-length"] = length.to_s
          headers["content-range"] = ByteRanges.content_range(ranges.first, representation.size)
          [206, headers, body(env, source, offset, length)]
        end

        # If a part were compressed on its way, its content-range would be wrong. Rack::Deflater compresses parts as
        # well, but not responses with no-transform (RFC 9111, 5.2.2.6).
        def keep_as_it_is(env, headers)
          return if [nil, "", AcceptEncoding::IDENTITY].include?(env["HTTP_ACCEPT_ENCODING"])

          directives = [*headers["cache-control"]].join(", ")
          return if headers.key?("content-encoding") || directives.match?(/\bno-transform\b/i)

          headers["cache-control"] = directives.empty? ? "no-transform" : "#{directives}, no-transform"
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

        # @return [Array<String>, nil] nil: one read did not return all of it
        def read(file, offset, length)
          content = ReadAhead.pread(file, length, offset)
          [content] if content.bytesize == length
        rescue EOFError, Errno::EINTR
          nil
        end

        def file_body(env, file, segments)
          FileBody.new(file, segments, destination: ServerSocket.for(env), timeout: @timeout)
        end
      end
    end
  end
end

require_relative "files/refusals"
require_relative "files/request_path"
require_relative "files/root"
require_relative "files/http_date"
require_relative "files/identity"
require_relative "files/headers"
require_relative "files/unsized"
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
        private_constant :Refusals, :RequestPath, :Root, :HttpDate, :Identity, :Headers, :Unsized, :ContentTypes,
                         :AcceptEncoding, :Representation, :Preconditions, :ByteRanges, :Multipart
      end
    end
  end
end
