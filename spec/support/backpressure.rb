# frozen_string_literal: true

# Proof that a transfer met a full socket, from outside (any waiter) and from what the primitives said.
module Backpressure
  STILL = 3 # looks in a row that must find the same
  APART = 0.004

  # The calls of the public primitives, in order, with what they returned.
  class Calls
    PRIMITIVES = %i[copy copy_small copy_splice copy_splice_into_pipe fadvise_sequential].freeze
    Call = Struct.new(:name, :arguments, :result)

    attr_reader :all

    def initialize
      @all = []
    end

    def names
      @all.map(&:name)
    end

    def to(name)
      @all.select { |call| call.name == name }
    end

    def statuses
      @all.filter_map { |call| call.result[1] if call.result.is_a?(Array) }
    end

    # True where a primitive said that the socket took nothing, or not all of it.
    def met_full_socket?
      statuses.intersect?(%i[eagain partial]) || to(:copy_small).any? { |call| short?(call) }
    end

    private

    def short?(call)
      _out, _file, _offset, length, head = call.arguments
      call.result < length + (head ? head.bytesize : 0)
    end
  end

  def observe_primitives
    Calls.new.tap do |calls|
      Calls::PRIMITIVES.each do |name|
        allow(S).to receive(name).and_wrap_original do |original, *arguments|
          original.call(*arguments).tap { |result| calls.all << Calls::Call.new(name, arguments, result) }
        end
      end
    end
  end

  # A pipe that the gem has opened for itself, by what its descriptors stand for.
  OwnPipe = Struct.new(:target) do
    def open?
      Fds.table.value?(target)
    end
  end

  # Those of the responses while the example runs.
  def observe_pipes
    [].tap do |pipes|
      allow(S.const_get(:Native)).to receive(:with_pipe).and_wrap_original do |original, &block|
        original.call do |*descriptors|
          pipes.concat(descriptors.map { |number| OwnPipe.new(File.readlink("/proc/self/fd/#{number}")) }.uniq)
          block.call(*descriptors)
        end
      end
    end
  end

  # Returns once the sender sleeps on a full +channel+, with the number of bytes queued there; fails if the
  # sender ends instead. Needs a reader that reads nothing.
  def await_backpressure(channel, sender, within: 10)
    looks = [] # bytes queued, or nil where the sender was moving
    Eventually.until("a sender asleep on a full #{channel.kind}", within: within, every: APART) do
      fail_for_want_of_backpressure(channel, sender) if sender.done?
      looks << (channel.queued if sender.asleep? && !channel.writable?)
      looks = looks.last(STILL)
      looks.all? && looks.size == STILL && looks.uniq.size == 1
    end
    looks.last
  end

  private

  def fail_for_want_of_backpressure(channel, sender)
    sender.value # raises what the sender raised
    raise Eventually::NeverHappened, "the transfer to #{channel.kind} ended without meeting a full socket"
  end
end
