# frozen_string_literal: true

# config/puma.rb for an app that serves files: puma -C examples/puma.rb config.ru
#
# There is nothing to switch on: Files and Middleware find Puma's socket. These are the settings that matter beside it.

# TCP_NODELAY: what of a response does not fill a segment goes out at once. Encrypted (ssl://), files go through Puma.
bind "tcp://127.0.0.1:#{ENV.fetch("PORT", "9292")}?low_latency=true"

# A client that is slow to read holds a thread until Files' or Middleware's timeout, while other threads serve.
threads 8, 16
workers Integer(ENV.fetch("WEB_CONCURRENCY", "0"))

# For those who are reading when it is told to stop.
force_shutdown_after 30
