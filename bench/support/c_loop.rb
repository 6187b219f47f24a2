# frozen_string_literal: true

require_relative "compile"

# Bench.c_loop and its kin.
Bench::Compile.load!("c_loop")
