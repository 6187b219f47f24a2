# frozen_string_literal: true

require_relative "compile"

# Bench.c_loop
Bench::Compile.load!("c_loop")
