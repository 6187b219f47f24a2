# frozen_string_literal: true

# The HTTPS example where the kernel encrypts.

require "spec_helper"

RSpec.describe "The HTTPS example" do
  it_behaves_like "examples/https.rb", ktls: /\Akernel TLS: yes/, kind: "ktls" if HttpsExample.curl?
end
