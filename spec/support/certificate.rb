# frozen_string_literal: true

require "openssl"

# A server's certificate, signed by itself, one for each process.
module Certificate
  def self.key
    @key ||= OpenSSL::PKey::EC.generate("prime256v1")
  end

  def self.x509
    @x509 ||= OpenSSL::X509::Certificate.new.tap do |certificate|
      certificate.version = 2
      certificate.serial = 1
      certificate.subject = certificate.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      certificate.public_key = key
      certificate.not_before = Time.now - 3_600
      certificate.not_after = Time.now + 86_400
      certificate.sign(key, "SHA256")
    end
  end
end
