# frozen_string_literal: true

require "openssl"

module Bench
  # A server's certificate, signed by itself.
  module Certificate
    # @param context [OpenSSL::SSL::SSLContext] is given it
    def self.add_to(context)
      key = OpenSSL::PKey::EC.generate("prime256v1")
      certificate = OpenSSL::X509::Certificate.new
      certificate.version = 2
      certificate.serial = 1
      certificate.subject = certificate.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      certificate.public_key = key
      certificate.not_before = Time.now - 60
      certificate.not_after = Time.now + 86_400
      certificate.sign(key, "SHA256")
      context.add_certificate(certificate, key)
    end
  end
end
