# frozen_string_literal: true

require "rbconfig"

# What an example can't do without, as its metadata: `needs: :splice`. Where this build, or this Ruby, has no such
# thing, the example is left out.
module Needs
  HAS = {
    extension: -> { S.const_get(:EXTENSION) },
    sendfile: -> { S.supported? },
    splice: -> { S.splice_supported? },
    linux: -> { S.platform_tag == :linux }, # its calls by name: what faults are injected into
    page_cache: -> { page_cache? }, # that can be asked; elsewhere an event loop leaves files to threads
    # Whether an extension can look into that of an IO.
    write_buffer: -> { S.const_get(:EXTENSION) && ENV["HYPERION_WITHOUT"] != "older" },
    queue: -> { S.const_get(:EXTENSION) && %i[linux unsupported].include?(S.platform_tag) }, # of a Linux socket
    schedulers: -> { Waiters::FIBERS.any? }, # JRuby's fibers have none
    server: -> { RUBY_ENGINE == "ruby" }, # JRuby's Socket is a client
    sleeping_write: -> { RUBY_ENGINE == "ruby" }, # JRuby's own IO#write spins while the socket is full
    http2: lambda do # by the gems for Ruby 3.3 and later
      require "hyperion/http/sendfile/http2"
      S::HTTP2.supported?
    end,
    openssl: -> { RUBY_ENGINE == "ruby" }, # JRuby's is not for two threads, and its write spins in the same way
    another_ruby: -> { RUBY_ENGINE == "ruby" } # one that is there at once
  }.freeze

  # qemu-user has Linux's calls, and not those that ask.
  def self.page_cache?
    return @page_cache if defined?(@page_cache)

    file = Payload.path(1)
    @page_cache = S.const_get(:EXTENSION) && File.open(file) { S.const_get(:Native).tells_resident?(_1) }
  end

  def self.met?(needs)
    Array(needs).all? { |what| HAS.fetch(what).call }
  end

  RSpec.configure do |config|
    config.filter_run_excluding(needs: ->(needs) { !met?(needs) })
    # With RUBY_MN_THREADS=1, Ruby 3.4.11 itself crashes in fibers of threads. And OpenSSL keeps its errors by native
    # thread: what one Ruby thread has left there, another takes for its own, also the specs' readers.
    config.filter_run_excluding(full_description: /fiber|tls1[23]/) if RUBY_DESCRIPTION.include?("+MN")
  end
end
