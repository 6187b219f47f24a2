# frozen_string_literal: true

# Proof that the payload does not pass through userspace: the system calls of a sender, by strace.

require "spec_helper"

RSpec.describe Hyperion::Http::Sendfile, "over kernel TLS, seen by strace" do
  size = 2_000_003
  head = "HTTP/1.1 200 OK\r\nx-name: value\r\n\r\n"

  by_kernel = %w[sendfile splice]
  through_memory = %w[read write pread64 pwrite64 readv writev preadv pwritev sendto sendmsg recvfrom recvmsg
                      copy_file_range vmsplice]
  traced = (by_kernel + through_memory + %w[kill]).join(",")

  # Bytes by name of system call, for the calls that this thread makes in the block.
  define_method(:strace) do |&block|
    log = File.join(Payload.dir, "strace")
    tracer = Process.spawn("strace", "-o", log, "-e", "trace=#{traced}", "-e", "signal=none", "-p", Process.pid.to_s,
                           err: File::NULL)
    eventually("strace") { File.read("/proc/self/status")[/TracerPid:\s+(\d+)/, 1].to_i.positive? }
    2.times { |time| Process.kill(0, Process.pid) && time.zero? && block.call } # marks in the log
    Process.kill(:INT, tracer)
    Process.wait(tracer)
    lines = File.readlines(log).grep(/\A(\w+)\(.* = (-?\d+)/) { [Regexp.last_match(1), Regexp.last_match(2).to_i] }
    first, last = lines.each_index.select { |index| lines[index].first == "kill" }
    lines[(first + 1)...last].each_with_object(Hash.new(0)) { |(name, moved), sums| sums[name] += [moved, 0].max }.to_a
  end

  # [whether the peer received it all, the kernel's counters before and after, bytes by system call]
  define_method(:observe) do |kind, **options|
    Faults.in_child do
      before = KernelTls.stat
      out, peer = KernelTls.connect(kind, **options)
      reader = Reader.start(peer, :greedy, process: true)
      file = payload_file(size)
      bytes = strace { described_class.copy_to_socket(out, file, head: head) }
      after = KernelTls.stat
      out.close
      [reader.result == head.b + payload(size), before, after, bytes]
    end
  end

  around do |example|
    example.run
  ensure
    ENV.delete("HYPERION_HTTP_SPLICE")
    described_class.sendfile_enabled = true
  end

  KernelTls::KINDS.each_key do |kind|
    { "sendfile" => nil, "splice" => "1" }.each do |name, splice|
      it "moves nothing of the file through memory with #{kind}, by #{name}" do
        ENV["HYPERION_HTTP_SPLICE"] = splice
        received, before, after, bytes = observe(kind)
        bytes = bytes.to_h
        expect(received).to be(true)
        expect(after["TlsTxSw"]).to eq(before["TlsTxSw"] + 1)
        expect(after["TlsCurrTxSw"]).to eq(before["TlsCurrTxSw"] + 1)
        expect(bytes[name]).to eq(splice ? 2 * size : size) # into the pipe, and out of it
        expect(bytes.values_at(*through_memory).compact.sum).to eq(head.bytesize)
      end
    end

    it "moves all of it through memory with #{kind} where sendfile is switched off, and the kernel encrypts" do
      ENV["HYPERION_HTTP_SPLICE"] = "1"
      described_class.sendfile_enabled = false # the child has it so, too
      received, before, after, bytes = observe(kind)
      bytes = bytes.to_h
      expect(received).to be(true)
      expect(after["TlsTxSw"]).to eq(before["TlsTxSw"] + 1)
      expect(bytes.values_at(*by_kernel).compact.sum).to eq(0)
      expect(bytes.values_at("sendto", "sendmsg").compact.sum).to eq(head.bytesize + size)
    end

    it "moves all of it through memory with #{kind} where OpenSSL encrypts" do
      received, before, after, bytes = observe(kind, enable: false)
      bytes = bytes.to_h
      expect(received).to be(true)
      expect(after["TlsTxSw"]).to eq(before["TlsTxSw"])
      expect(bytes.values_at(*by_kernel).compact.sum).to eq(0)
      expect(bytes["write"]).to be > size
    end
  end
end
