# frozen_string_literal: true

# The HTTPS example, where OpenSSL encrypts, or the kernel if it has kernel TLS.

require "spec_helper"

RSpec.describe "The HTTPS example" do
  if HttpsExample.curl?
    has_it = File.exist?(KernelTls::STAT)
    it_behaves_like "examples/https.rb", ktls: /\Akernel TLS: #{has_it ? "yes" : "no"}/,
                                         kind: has_it ? "ktls" : "tls_userspace"
  else
    warn "https_spec: curl is not installed: the example is not looked at"
  end
end
