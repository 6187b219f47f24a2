# frozen_string_literal: true

# Prints the methods of other gems that HTTP/2 and Falcon are built on and that are not as they were read.
#
#   ruby -Ilib spec/support/tasks/foundations.rb
require "hyperion/http/sendfile/falcon"

async_http = Hyperion::Http::Sendfile.const_get(:AsyncHTTP)
probe = async_http::Probe
found = async_http::Foundations.constants.flat_map do |name|
  foundation = async_http::Foundations.const_get(name)
  foundation.instance_variable_get(:@probe).instance_variable_get(:@read).filter_map do |method, as_read|
    now = Integer === as_read ? probe.arity(method) : probe.digest(method)
    "#{name}: #{method} is #{now}, and #{as_read} was read" unless as_read.to_s.split.include?(now.to_s)
  rescue NameError
    "#{name}: there is no #{method}"
  end
end
puts found.empty? ? "All are as they were read." : found
