# frozen_string_literal: true

require "fiddle"

module Bench
  # A network namespace of its own: nothing of it is seen outside, and nothing stays, since it lives as long as a
  # descriptor or a socket of it. Raises a SystemCallError or a Fiddle::DLError where there can be none.
  class Namespace
    CLONE_NEWNET = 0x40000000
    OWN = "/proc/thread-self/ns/net"
    private_constant :CLONE_NEWNET, :OWN

    def initialize
      @outside = File.new(OWN)
      call("unshare", CLONE_NEWNET)
      @inside = File.new(OWN)
      enter(@outside)
    end

    # Runs the block, and what it spawns, in there. A thread is in one namespace, a socket in that of the thread that
    # made it.
    def within
      enter(@inside)
      yield
    ensure
      enter(@outside)
    end

    # Runs ip(8) in there.
    def ip(*arguments)
      within { system("ip", *arguments.map(&:to_s), exception: true) }
    rescue RuntimeError => e
      raise Errno::ENODEV, e.message
    end

    # What other processes, and ip, know it by.
    def path
      "/proc/#{Process.pid}/fd/#{@inside.fileno}"
    end

    def close
      [@outside, @inside].each(&:close)
    end

    private

    def enter(namespace)
      call("setns", namespace.fileno, CLONE_NEWNET)
    end

    def call(name, *arguments)
      function = Fiddle::Function.new(Fiddle::Handle::DEFAULT[name], [Fiddle::TYPE_INT] * arguments.size,
                                      Fiddle::TYPE_INT)
      function.call(*arguments).zero? or raise SystemCallError.new(name, Fiddle.last_error)
    end
  end
end
