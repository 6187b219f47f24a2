# frozen_string_literal: true

# What one seed stands for: a transfer, and the faults that its system calls suffer.
module Faults
  class Plan
    # Which faults a call can have. Those that are only :soft a transfer has to get over; the others may end it, with
    # the error that they are.
    MENU = {
      sendfile: { soft: [:shorten, Errno::EINTR, Errno::EAGAIN, Errno::EINVAL, Errno::ENOSYS, Errno::EPERM,
                         Errno::EOPNOTSUPP],
                  hard: [:zero, Errno::EIO, Errno::ENOMEM, Errno::EPIPE, Errno::ECONNRESET] },
      fill: { soft: [:shorten, Errno::EINTR, Errno::EAGAIN, Errno::EINVAL, Errno::ENOSYS, Errno::EPERM],
              hard: [:zero, Errno::EIO, Errno::ENOMEM] },
      drain: { soft: [:shorten, Errno::EINTR, Errno::EAGAIN, Errno::EINVAL, Errno::EPERM],
               hard: [:zero, Errno::EIO, Errno::ENOMEM, Errno::EPIPE] },
      pread: { soft: [:shorten, Errno::EINTR], hard: [:zero, Errno::EIO, Errno::ENOMEM, Errno::EINVAL, Errno::EPERM] },
      sendmsg: { soft: [:shorten, :zero, Errno::EINTR, Errno::EAGAIN],
                 hard: [Errno::EIO, Errno::ENOMEM, Errno::ENOBUFS, Errno::EPIPE, Errno::EINVAL, Errno::ENOSYS] },
      write: { soft: [:shorten, Errno::EINTR, Errno::EAGAIN], hard: [Errno::EIO, Errno::ENOMEM, Errno::EPIPE] },
      poll: { soft: [:ready, Errno::EINTR], hard: [Errno::ENOMEM, Errno::EINVAL] },
      fstat: { soft: [], hard: [Errno::EIO, Errno::ENOMEM] },
      dup: { soft: [Errno::EMFILE, Errno::EINVAL, Errno::ENOMEM, Errno::EPERM], hard: [] },
      pipe: { soft: [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOSYS, Errno::EPERM], hard: [] },
      queued: { soft: [Errno::EINVAL, Errno::ENOSYS], hard: [Errno::EIO, Errno::ENOMEM] },
      # Hints, and questions that have a safe answer.
      preadv2: { soft: [:shorten, :zero, Errno::EAGAIN, Errno::EINTR, Errno::EIO, Errno::EOPNOTSUPP, Errno::ENOSYS],
                 hard: [] },
      getfl: { soft: [Errno::EINVAL, Errno::EPERM, Errno::ENOSYS], hard: [] },
      widen: { soft: [Errno::EPERM, Errno::EBUSY, Errno::ENOMEM, Errno::EINVAL], hard: [] },
      advise: { soft: [Errno::EINVAL, Errno::ESPIPE, Errno::ENOSYS], hard: [] },
      sockopt: { soft: [Errno::ENOPROTOOPT, Errno::EPERM, Errno::ENOMEM, Errno::EINVAL], hard: [] }
    }.freeze
    HINTS = %i[preadv2 getfl widen advise sockopt].freeze

    # What a call says for good when it can never get on, and so only a timeout ends the wait.
    STUCK = { sendfile: [Errno::EAGAIN, Errno::EINTR], fill: [Errno::EAGAIN, Errno::EINTR],
              drain: [Errno::EAGAIN, Errno::EINTR], sendmsg: [Errno::EAGAIN, Errno::EINTR, :zero],
              pread: [Errno::EINTR], write: [Errno::EAGAIN, Errno::EINTR] }.freeze

    Way = Struct.new(:name, :kind, :sizes, :splice, :source, :calls, :frames, :weight, keyword_init: true)
    SMALL = 1..S::SMALL_FILE_THRESHOLD
    LARGE = (S::SMALL_FILE_THRESHOLD + 1)..700_000
    NATIVE = %i[tcp tcp tcp fd unix pipe].freeze

    # Which system calls carry the bytes on it, most of the time.
    WAYS = [
      *NATIVE.map { |kind| Way.new(name: :small, kind:, sizes: SMALL, calls: %i[sendfile pread sendmsg], weight: 3) },
      *NATIVE.map { |kind| Way.new(name: :sendfile, kind:, sizes: LARGE, calls: %i[sendfile sendmsg], weight: 4) },
      *NATIVE.map do |kind|
        Way.new(name: :splice, kind:, sizes: LARGE, splice: true, calls: %i[fill drain], weight: 4)
      end,
      *NATIVE.map do |kind|
        Way.new(name: :memory, kind:, sizes: 1..700_000, source: :blocking, calls: %i[pread sendmsg], weight: 2)
      end,
      *%i[tcp unix pipe].map do |kind|
        Way.new(name: :userspace, kind:, sizes: 1..700_000, source: :stringio, calls: %i[sendmsg], weight: 1)
      end,
      *%i[tls12 tls13].flat_map do |kind|
        [Way.new(name: :tls, kind:, sizes: 1..400_000, calls: %i[write preadv2 pread], weight: 3),
         Way.new(name: :tls_from_memory, kind:, sizes: 1..200_000, source: :stringio, calls: %i[write], weight: 1)]
      end,
      Way.new(name: :wrapper, kind: :wrapper, sizes: 1..400_000, calls: %i[write pread], weight: 3)
    ].flat_map { |way| [way] * way.weight }.freeze

    # Those of connections that the kernel encrypts, which have a campaign of their own.
    KERNEL_TLS_WAYS = %i[ktls12 ktls13].flat_map do |kind|
      [*[Way.new(name: :small, kind:, sizes: SMALL, calls: %i[sendfile pread sendmsg poll])] * 3,
       *[Way.new(name: :sendfile, kind:, sizes: LARGE, calls: %i[sendfile sendmsg poll])] * 4,
       *[Way.new(name: :splice, kind:, sizes: LARGE, splice: true, calls: %i[fill drain poll])] * 3,
       *[Way.new(name: :from_memory, kind:, sizes: 1..400_000, source: :stringio, calls: %i[sendmsg poll])] * 2]
    end.freeze

    # Those of DATA frames of a size.
    FRAMES_WAYS = [
      *NATIVE.flat_map do |kind|
        [*[Way.new(name: :frames, kind:, sizes: 1..700_000, frames: 16_384, calls: %i[pread sendmsg])] * 4,
         *[Way.new(name: :large_frames, kind:, sizes: LARGE, frames: 70_000, calls: %i[sendfile sendmsg fstat])] * 4,
         Way.new(name: :frames_of_memory, kind:, sizes: LARGE, frames: 16_384, source: :string, calls: %i[sendmsg]),
         Way.new(name: :blocking_frames, kind:, sizes: LARGE, frames: 70_000, source: :blocking,
                 calls: %i[pread sendmsg])]
      end,
      *%i[tls12 tls13].flat_map do |kind|
        [16_384, 70_000].flat_map do |frames|
          [Way.new(name: :tls_frames, kind:, sizes: 1..400_000, frames:, calls: %i[write preadv2 pread])] * 4
        end
      end,
      *[Way.new(name: :frames, kind: :wrapper, sizes: 1..400_000, frames: 16_384, calls: %i[write pread])] * 4
    ].freeze

    # By the name of a campaign.
    WAYS_OF = { usual: WAYS, ktls: KERNEL_TLS_WAYS, frames: FRAMES_WAYS }.freeze

    # A caller's own loop over a primitive stands beside the library's ways of waiting.
    WAITERS = (Waiters::ALL + %i[thread fiber_async own_copy own_small own_splice own_pipe]).freeze
    OWN_LOOPS = { own_copy: :copy, own_small: :copy_small, own_splice: :copy_splice,
                  own_pipe: :copy_splice_into_pipe }.freeze
    STYLES = %i[once once once often often often rare rare hints stuck stalled].freeze

    attr_reader :seed, :way, :waiter, :size, :offset, :head, :timeout, :rules, :style, :reader, :small_buffers,
                :keep_gvl, :report, :follow_up, :setback, :setback_at

    # @param ways [Symbol] a key of WAYS_OF
    def initialize(seed, ways = :usual)
      @seed = seed
      @ways = WAYS_OF.fetch(ways)
      @random = Random.new(seed)
      choose_transfer
      choose_style
      choose_faults
      choose_circumstances
    end

    def nonblock?
      way.source != :blocking
    end

    def own_loop
      OWN_LOOPS[waiter]
    end

    def kernel_tls?
      way.kind.start_with?("ktls")
    end

    # May only a timeout end it?
    def limited?
      %i[stuck stalled].include?(style)
    end

    def to_s
      buffers = " (small buffers)" if small_buffers
      "#{way.name} to #{way.kind} by #{waiter}, #{size} bytes at #{offset}, head #{head&.bytesize.inspect}, timeout " \
        "#{timeout.inspect}, reader #{reader}#{buffers}#{" keep_gvl" if keep_gvl}#{" with a block" if report}; " \
        "#{"#{setback} after #{setback_at} calls; " if setback}#{style}#{": #{told}" if rules.size.between?(1, 3)}"
    end

    private

    def told
      rules.map { |call, rule| "#{call} #{rule}" }.join("; ")
    end

    def pick(list)
      list[@random.rand(list.size)]
    end

    def choose_transfer
      @way = pick(@ways)
      @waiter = pick(WAITERS)
      @waiter = pick(Waiters::ALL) if own_loop && !(NATIVE.include?(way.kind) && way.source.nil? && way.frames.nil?)
      @size = waiter == :own_small ? size_in(SMALL) : size_in(way.sizes)
      @offset = way.source == :stringio ? 0 : @random.rand(200_000)
      @head = pick([nil, nil, 1, 150, 150, 2_000, 30_000])&.then { |length| Random.new(seed).bytes(length) }
      @head = nil if own_loop
    end

    # As many of a thousand bytes as of a hundred thousand, and often on the brink.
    def size_in(range)
      return pick([range.min, range.max, 4096, 8192, 8193, 16_384, 65_535].select { |size| range.cover?(size) }) if
        @random.rand(5).zero?

      Math.exp(Math.log(range.min) + (@random.rand * (Math.log(range.max) - Math.log(range.min)))).to_i
    end

    def choose_style
      @style = pick(STYLES)
      @style = :often if limited? && own_loop
      @style = :hints if style == :stuck && stuck_calls.empty?
      choose_setback if %i[often rare].include?(style) && !own_loop && %i[tcp unix ktls12 ktls13].include?(way.kind)
    end

    # What others do to the transfer while its calls suffer, when it has made so many.
    def choose_setback
      @setback = pick([nil, nil, :kill, :close, :reset])
      @setback = nil if setback == :kill && waiter.to_s.include?("fiber") # which leaves its fiber unfinished
      @setback_at = @random.rand(1..40)
    end

    def stuck_calls
      # A write of Ruby's own waits, and asks again, as it likes.
      @stuck_calls ||= (way.calls & STUCK.keys) - (way.kind == :wrapper ? %i[write] : [])
    end

    def choose_faults
      @rules =
        case style
        when :once then once
        when :often then dice([200, 500].sample(random: @random))
        when :rare then dice(120)
        when :hints then HINTS.to_h { |call| [call, rule(pick(MENU[call][:soft]), 0, ALWAYS)] }
        when :stuck then pick(stuck_calls).then { |call| { call => rule(pick(STUCK[call]), @random.rand(3), ALWAYS) } }
        when :stalled then {}
        end
    end

    # At one place, for once or from there on: those calls that carry the bytes, or any other.
    def once
      calls = @random.rand(4).zero? ? [pick(MENU.keys)] : way.calls
      calls.to_h do |call|
        fault = pick(MENU[call].values.flatten - lies)
        times = pick(for_good?(call, fault) ? [1, 2, ALWAYS] : [1, 1, 2, 5])
        [call, rule(fault, pick([0, 0, 0, 0, 1, 2]), times)]
      end
    end

    # That a socket under kernel TLS is writable is how it is known that the last records are out.
    def lies
      kernel_tls? ? [:ready] : []
    end

    # What is said for good may neither be a way to ask for ever, nor an answer that leads to nothing else.
    def for_good?(call, fault)
      fault != :ready && !STUCK.fetch(call, []).include?(fault) && !asked_for_ever?(call, fault)
    end

    # Ruby's own IO#write, by which a wrapper writes, waits again for as long as its wait is interrupted, and so does
    # who waits for the last records; each of which is as short as its write.
    def asked_for_ever?(call, fault)
      return true if kernel_tls? && fault == :shorten

      (kernel_tls? || way.kind == :wrapper) && call == :poll && fault == Errno::EINTR
    end

    # Any call may suffer anything, by dice.
    def dice(chance)
      hard = @random.rand(3).zero? && setback.nil?
      MENU.each_with_object({}) do |(call, faults), rules|
        choices = (hard ? faults[:soft] + faults[:hard] : faults[:soft]).sample(8, random: @random) - lies
        choices -= [:ready] if way.kind == :pipe # a blocking write would then wait in the kernel
        next if choices.empty? || @random.rand(6).zero?

        first, *others = choices.map { |fault| action(fault) }
        rules[call] = Rule.new(*first, pick([0, 0, 0, 1, 2]), ALWAYS, chance, @random.rand(1 << 62), others)
      end
    end

    def rule(fault, skip, times)
      Rule.new(*action(fault), skip, times, 1000, @random.rand(1 << 62))
    end

    def action(fault)
      fault.is_a?(Symbol) ? [fault, 0] : [:fail, fault::Errno]
    end

    def choose_circumstances
      @timeout = limited? ? 0.25 : pick([nil, nil, 15])
      @reader = style == :stalled ? :stalled : pick(%i[greedy greedy greedy slow])
      @small_buffers = style == :stalled || reader == :slow || @random.rand(2).zero?
      @keep_gvl = @random.rand(4).zero?
      @report = !own_loop && (!setback.nil? || @random.rand(3).zero?)
      @follow_up = setback.nil? && @random.rand(3).zero? && size_in(1..200_000)
    end
  end
end
