# frozen_string_literal: true

# For Bundler's auto-require, which goes by the gem's name.
require_relative "hyperion/http/sendfile"
