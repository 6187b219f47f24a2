# frozen_string_literal: true

# Kernel TLS: what of a response goes through userspace. Not how fast it is: where it usually runs, in user-mode-linux
# (rake bench:ktls), a system call costs what an emulator makes of it.

require_relative "support"
require_relative "support/system_calls"
require_relative "support/tls_drain"

S = Hyperion::Http::Sendfile

CLAIM = <<~TEXT.tr("\n", " ").strip
  Where the kernel encrypts, no byte of a response of 64 KiB or more is copied to or from userspace by copy_to_socket,
  where in userspace each is copied twice, and system calls are fewer than records. Counted by strace: calls, and the
  bytes that those returned which read or write memory of the process. This says nothing of speed.
TEXT

PEERS = {
  "copy_to_socket, kernel TLS" => [true, ->(ssl, file, length) { S.copy_to_socket(ssl, file, 0, length) }],
  "copy_to_socket, OpenSSL" => [false, ->(ssl, file, length) { S.copy_to_socket(ssl, file, 0, length) }],
  "IO.copy_stream, kernel TLS" => [true, ->(ssl, file, length) { IO.copy_stream(file, ssl, length, 0) }]
}.freeze
OURS = PEERS.keys.first
SIZES = [64 * Bench::KIB, Bench::MIB, 16 * Bench::MIB].freeze
RECORD = 16 * Bench::KIB
COPYING = %w[read readv pread64 preadv preadv2 write writev sendto sendmsg].freeze
RETURNED = /= (\d+)$/

def log_of(version, length, file)
  drains = PEERS.transform_values do |enable, _|
    Bench::TlsDrain.new(Bench::TlsDrain::VERSIONS.fetch(version)) { |context| S.enable_ktls(context) if enable }
  end
  drains.each { |name, drain| raise "bench: no kernel TLS" unless S.ktls?(drain.ssl) == PEERS.fetch(name).first }
  Bench::SystemCalls.log do |mark|
    PEERS.each do |name, (_, transfer)|
      drains.fetch(name).settled { |ssl| transfer.call(ssl, file, length) } # whatever is made once, is made now
      drains.fetch(name).settled { |ssl| mark.call(name) { transfer.call(ssl, file, length) } }
    end
  end
ensure
  drains&.each_value(&:close)
end

def copied(calls)
  calls.sum { |call, line| COPYING.include?(call) ? line[RETURNED, 1].to_i : 0 }
end

def report_version(report, version)
  SIZES.flat_map do |length|
    log = Bench::SourceFile.open(length) { |file| log_of(version, length, file) }
    what = "#{version}, #{Bench.size(length)}"
    ours = log.fetch(OURS)
    report.check("bytes copied, #{what}", Bench::Statistics.exactly(copied(ours)), at_most: 0)
    report.check("system calls, #{what}", Bench::Statistics.exactly(ours.size), at_most: (length / RECORD) + 8)
    log.map do |name, calls|
      most = calls.map(&:first).tally.max_by(3, &:last).map { |call, count| "#{count} #{call}" }.join(", ")
      [version, Bench.size(length), name, calls.size, most, copied(calls).to_f / length]
    end
  end
end

Bench.run("ktls", CLAIM, quick: { versions: ["TLS 1.3"] },
                         full: { versions: Bench::TlsDrain::VERSIONS.keys }) do |report, versions:|
  unless File.exist?("/proc/net/tls_stat")
    report.skip("kernel TLS", "this kernel has none; rake bench:ktls boots one that has")
    next
  end

  report.table("One response", ["version", "size", "transfer", "system calls", "most of them", "bytes copied per byte"],
               versions.flat_map { |version| report_version(report, version) })
rescue Bench::SystemCalls::Unavailable => e
  report.skip("kernel TLS", e.message)
end
