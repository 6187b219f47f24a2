# frozen_string_literal: true

# Shows on one machine that a fleet loses no request while it is restarted: starts three Pumas and HAProxy, asks for
# files and ranges all the while, checks every byte, restarts each server in turn, and counts.
#
#   bundle exec ruby -Ilib examples/fleet/prove.rb          (needs haproxy)
require "fileutils"
require "net/http"
require "socket"
require "tmpdir"
require_relative "rolling_restart"

# The servers, the balancer and the clients.
class Fleet
  SERVERS = %w[one two three].freeze
  CLIENTS = 8
  SIZES = [700, 60_000, 1_500_000].freeze

  def initialize(dir)
    @dir = dir
    @root = File.join(dir, "files").tap { |root| Dir.mkdir(root) }
    @admin = File.join(dir, "admin.sock")
    @port, *ports = free_ports(SERVERS.size + 1)
    @ports = SERVERS.zip(ports).to_h
    @contents = SIZES.to_h { |size| ["#{size}.bin", Random.new(size).bytes(size)] }
    @contents.each { |name, content| File.binwrite(File.join(@root, name), content) }
    @pids = {}
  end

  def prove
    SERVERS.each { |server| start(server) }
    @balancer = spawn(addresses, "haproxy", "-db", "-q", "-f", File.join(__dir__, "haproxy.cfg"))
    restart = RollingRestart.new(@admin, "files")
    settle(restart)
    clients = Array.new(CLIENTS) { |number| Thread.new { ask(Random.new(number)) } }
    before = @pids.dup
    restart.run { |server| restart(server) }
    report(clients, restart, before)
  ensure
    @over = true
    [@balancer, *@pids.values].compact.each { |pid| stop(pid) }
  end

  private

  def start(server)
    @pids[server] = spawn({ "FLEET_PORT" => @ports[server].to_s, "FLEET_ROOT" => @root },
                          Gem.ruby, "-I#{File.expand_path("../../lib", __dir__)}", "-S", "puma",
                          "-C", File.join(__dir__, "puma.rb"), File.join(__dir__, "config.ru"), out: File::NULL)
  end

  def restart(server)
    stop(@pids.fetch(server))
    start(server)
    puts "#{server}: restarted"
  end

  def stop(pid)
    Process.kill(:TERM, pid)
    Process.wait(pid)
  end

  def addresses
    { "FLEET_ADMIN" => @admin, "FLEET_PORT" => @port.to_s }
      .merge(@ports.to_h { |server, port| ["FLEET_#{server.upcase}", port.to_s] })
  end

  def free_ports(count)
    listeners = Array.new(count) { TCPServer.new("127.0.0.1", 0) }
    listeners.map { |listener| listener.local_address.ip_port }
  ensure
    listeners.each(&:close)
  end

  # Waits until every server has passed its check.
  def settle(restart)
    600.times do
      return if File.socket?(@admin) && restart.up?
    rescue Errno::ECONNREFUSED
      next
    ensure
      sleep 0.05
    end
    raise "the fleet does not come up"
  end

  # One client, on a kept-alive connection.
  # @return [Array(Integer, Array<String>)] the number of correct answers, and the failures
  def ask(random)
    right = 0
    wrong = []
    until @over
      begin
        Net::HTTP.start("127.0.0.1", @port, max_retries: 0) do |http|
          until @over
            failure = failure(http, random)
            failure ? wrong << failure : right += 1
          end
        end
      rescue IOError, SystemCallError, Net::ProtocolError, Timeout::Error => e
        wrong << e.inspect
      end
    end
    [right, wrong]
  end

  # @return [String, nil] the fault of an answer; nil: it is correct
  def failure(http, random)
    name, content = @contents.to_a.sample(random: random)
    first = random.rand(content.bytesize) if random.rand < 0.5
    response = http.get("/#{name}", first ? { "range" => "bytes=#{first}-" } : {})
    expected = first ? content.byteslice(first..) : content
    return if response.code == (first ? "206" : "200") && response.body == expected

    "#{response.code}, #{response.body.bytesize} bytes, for #{name} from #{first || "its start"}"
  end

  def report(clients, restart, before)
    @over = true
    results = clients.map(&:value)
    wrong = results.flat_map(&:last)
    restarted = before.count { |server, pid| @pids[server] != pid }
    right = results.sum(&:first)
    puts "#{restarted} of #{SERVERS.size} servers restarted; #{right} requests answered rightly, #{wrong.size} not"
    restart.servers.each { |server, row| puts "#{server}: #{row["stot"]} requests, #{row["wretr"]} tried again" }
    wrong.tally.each { |failure, count| puts "#{count} times: #{failure}" }
    restarted == SERVERS.size && right.positive? && wrong.empty?
  end
end

Dir.mktmpdir("hyperion-sendfile-fleet") { |dir| exit(Fleet.new(dir).prove) }
