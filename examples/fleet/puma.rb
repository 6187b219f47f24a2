# frozen_string_literal: true

# puma -C puma.rb config.ru, with FLEET_PORT and FLEET_ROOT in the environment.
bind "tcp://127.0.0.1:#{ENV.fetch("FLEET_PORT")}"
threads 8, 8 # a slow client occupies one until Files' timeout
environment "production"
# All connections come from the balancer, which keeps them open: do not wait for more requests when told to stop.
persistent_timeout 75
force_shutdown_after 60
raise_exception_on_sigterm false
quiet
