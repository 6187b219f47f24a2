# frozen_string_literal: true

# The kernel that stands in for another system's in a build of rake platforms (stand_in/kernel.h): directs what its
# sendfile suffers.
module StandInKernel
  COUNTERS = %i[calls suffered to_the_end].freeze
  NOT_TOUCHED = -1

  class << self
    # Whether the extension that is loaded has one.
    def available?
      !library.nil?
    end

    # The next call moves so many bytes and ends with that error; those after it move none.
    def script(errno, after:, times: 1)
      call("stand_in_script", [Fiddle::TYPE_INT, Fiddle::TYPE_LONG_LONG, Fiddle::TYPE_INT], errno::Errno, after, times)
    end

    def pass
      call("stand_in_script", [Fiddle::TYPE_INT, Fiddle::TYPE_LONG_LONG, Fiddle::TYPE_INT], 0, 0, 0)
    end

    # What is not scripted happens by chance; with 0 nothing does.
    def seed(number)
      call("stand_in_seed", [Fiddle::TYPE_LONG_LONG], number)
    end

    # What the block added to a counter.
    def counted(counter)
      before = count(counter)
      yield
      count(counter) - before
    end

    private

    def count(counter)
      call("stand_in_counted", [Fiddle::TYPE_INT], COUNTERS.index(counter), result: Fiddle::TYPE_LONG_LONG)
    end

    def call(name, types, *arguments, result: Fiddle::TYPE_VOID)
      Fiddle::Function.new(library[name], types, result).call(*arguments)
    end

    def library
      return @library if defined?(@library)

      path = $LOADED_FEATURES.grep(%r{/hyperion_sendfile\.}).first
      return @library = nil unless path && File.binread(path).include?("stand_in_script")

      require "fiddle"
      @library = Fiddle.dlopen(path)
    end
  end
end
