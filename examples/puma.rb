# frozen_string_literal: true

# config/puma.rb for an app that serves files: puma -C examples/puma.rb config.ru
#
# Nothing has to be enabled: Files and Middleware find Puma's socket. These are the other settings that matter.

# TCP_NODELAY: a last segment that is not full is sent at once. With ssl://, Puma sends the files.
bind "tcp://127.0.0.1:#{ENV.fetch("PORT", "9292")}?low_latency=true"

# A slow client occupies a thread until the timeout of Files or Middleware; the other threads go on serving.
threads 8, 16
workers Integer(ENV.fetch("WEB_CONCURRENCY", "0"))

# Seconds for clients that are still reading when Puma is told to stop.
force_shutdown_after 30
