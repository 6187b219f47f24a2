# frozen_string_literal: true

# Thousands of plans, many to a process, under the preloaded library. A plan that breaks something, or never ends,
# prints its seed; `rake "faults[1,SEED]"`, or `rake "faults:ktls[1,SEED]"`, carries it out again.
module Faults
  class Campaign
    BATCH = 50 # plans to a process, at most
    WORKERS = 2
    HANG = Trial::LIMIT * 4 # seconds without word from a process

    # What came of a plan. +last+: the process carries out no other after it.
    Word = Struct.new(:seed, :fired, :outcome, :broken, :last, keyword_init: true)

    # @param ways [Symbol] a key of Plan::WAYS_OF
    def initialize(count, seed, ways = :usual)
      @ways = ways
      @seeds = (seed...(seed + count)).to_a
      @first = seed
      @words = []
    end

    # @return [Boolean] nothing was broken, and some plan was suffered
    def run
      Array.new([WORKERS, @seeds.size].min) { Thread.new { work } }.each(&:join)
      puts summary
      broken.empty? && total.values.sum.positive?
    end

    # In a process that has the library: each batch in a fork of it.
    def self.serve(requests, answers, control)
      loop do
        ways, seeds = Marshal.load(requests) # rubocop:disable Security/MarshalLoad -- our own parent
        pid = fork do
          carry_out(ways, seeds, answers, control)
        ensure
          exit!(true)
        end
        Process.waitpid(pid)
        Marshal.dump(nil, answers)
      end
    rescue EOFError
      nil
    end

    def self.carry_out(ways, seeds, answers, control)
      Trial.warm_up(control)
      seeds.each do |seed|
        word = word_on(Plan.new(seed, ways), control)
        Marshal.dump(word, answers)
        break if word.last
      end
    end

    def self.word_on(plan, control)
      trial = Trial.new(plan, control)
      word = Word.new(seed: plan.seed)
      trial.run
      word.fired = trial.fired
      word.outcome = trial.outcome.to_s
      # A kernel without splice is remembered for good.
      word.last = !S.splice_runtime_supported? && ENV["HYPERION_HTTP_SPLICE"] == "1"
      word
    rescue StandardError => e
      where = e.is_a?(Trial::Broken) ? nil : "\n#{Array(e.backtrace).first(8).join("\n")}"
      Word.new(seed: plan.seed, broken: "#{plan}\n#{e.message}#{where}", last: true)
    end
    private_class_method :carry_out, :word_on

    private

    def work
      while (seed = @seeds.shift)
        seeds = [seed, *@seeds.shift(BATCH - 1)]
        process ||= Preloaded.new("Faults::Campaign.serve")
        done = batch(process, seeds)
        @seeds.unshift(*seeds.drop(done))
        process = nil unless process.alive?
      end
    ensure
      process&.stop
    end

    # @return [Integer] how many of the seeds are dealt with
    def batch(process, seeds)
      done = 0
      process.request([@ways, seeds])
      while (word = process.answer(HANG))
        done += 1
        take(word)
      end
      done += 1 if done.zero? && take(Word.new(seed: seeds[done], broken: "the process died"))
      done
    rescue Eventually::NeverHappened, EOFError => e
      process.kill
      take(Word.new(seed: seeds[done], broken: "#{Plan.new(seeds[done], @ways)}\nno end (#{e.message})"))
      done + 1
    end

    def take(word)
      @words << word
      task = @ways == :usual ? "faults" : "faults:#{@ways}"
      puts "\nseed #{word.seed}: #{word.broken}\n  again: rake \"#{task}[1,#{word.seed}]\"" if word.broken
      word
    end

    def broken
      @words.select(&:broken)
    end

    # How often each call was made to suffer.
    def total
      @words.filter_map(&:fired).reduce { |a, b| a.merge(b) { |_, x, y| x + y } } || {}
    end

    def summary
      fired = @words.filter_map(&:fired)
      idle = Faults::CALLS.reject { |call| total[call].to_i.positive? }
      <<~TEXT
        #{@words.size} plans from seed #{@first}, #{broken.size} broken
        faults: #{total.sort_by { |_, count| -count }.map { |call, count| "#{call} #{count}" }.join(", ")}
        #{"none of: #{idle.join(", ")}\n" if idle.any?}plans that suffered none: #{fired.count { |each| each.values.sum.zero? }}
        ends: #{@words.map(&:outcome).tally.sort_by { |_, count| -count }.map { |end_, count| "#{end_} #{count}" }.join(", ")}
      TEXT
    end
  end
end
