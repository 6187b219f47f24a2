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
    queue: -> { S.const_get(:EXTENSION) && %i[linux unsupported].include?(S.platform_tag) }, # of a Linux socket
    backpressure: -> { RUBY_ENGINE == "ruby" } # JRuby can't look at an IO that another thread waits on
  }.freeze

  def self.met?(needs)
    Array(needs).all? { |what| HAS.fetch(what).call }
  end

  RSpec.configure { |config| config.filter_run_excluding(needs: ->(needs) { !met?(needs) }) }
end
