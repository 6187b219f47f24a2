# frozen_string_literal: true

# Finds the content type for the name of a file.
begin
  require "rack/mime"
rescue LoadError
  nil # a server may use Rack's protocol without the gem rack
end

module Hyperion
  module Http
    module Sendfile
      class Files
        # Rack's table, with the types that the application has added, if the gem rack is available; otherwise a small
        # table for web pages.
        # @api private
        module ContentTypes
          OWN = {
            ".avif" => "image/avif", ".css" => "text/css", ".csv" => "text/csv", ".gif" => "image/gif",
            ".gz" => "application/gzip", ".htm" => "text/html", ".html" => "text/html",
            ".ico" => "image/vnd.microsoft.icon", ".jpeg" => "image/jpeg", ".jpg" => "image/jpeg",
            ".js" => "text/javascript", ".json" => "application/json", ".m4a" => "audio/mp4",
            ".mjs" => "text/javascript", ".mp3" => "audio/mpeg", ".mp4" => "video/mp4", ".ogg" => "audio/ogg",
            ".pdf" => "application/pdf", ".png" => "image/png", ".svg" => "image/svg+xml",
            ".tar" => "application/x-tar", ".txt" => "text/plain", ".wasm" => "application/wasm",
            ".wav" => "audio/wav", ".webm" => "video/webm", ".webp" => "image/webp", ".woff" => "font/woff",
            ".woff2" => "font/woff2", ".xml" => "text/xml", ".zip" => "application/zip"
          }.freeze
          private_constant :OWN

          # @param path [String]
          # @param default [String, nil]
          # @param types [Hash, nil] a table as {snapshot} returns it; nil: the current one
          # @return [String, nil]
          def self.of(path, default, types = nil)
            (types || table).fetch(File.extname(path).downcase, default)
          end

          # @return [Hash] a frozen copy of the table, for other Ractors, which cannot reach Rack's
          def self.snapshot
            table.dup.freeze
          end

          if defined?(::Rack::Mime)
            def self.table
              ::Rack::Mime::MIME_TYPES
            end
          else
            def self.table
              OWN
            end
          end
          private_class_method :table
        end
      end
    end
  end
end
