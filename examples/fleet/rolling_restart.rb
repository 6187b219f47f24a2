# frozen_string_literal: true

# Restarts the servers behind HAProxy one after another without losing a request: a server gets no new requests,
# finishes the current ones, is restarted, and is used again after its health check has passed.
#
#   ruby rolling_restart.rb /run/haproxy/admin.sock files systemctl restart files@SERVER
require "socket"

# Uses HAProxy's runtime API.
class RollingRestart
  POLL = 0.05

  # @param admin_socket [String] the path of HAProxy's stats socket, of level admin
  # @param backend [String]
  # @param patience [Numeric] seconds for each step
  def initialize(admin_socket, backend, patience: 60)
    @admin_socket = admin_socket
    @backend = backend
    @patience = patience
  end

  # @yieldparam server [String] to be restarted; the block returns when the old process has ended and a new one begun
  def run
    servers.each_key do |server|
      wait_for("all to be up, before #{server} is restarted") { up? }
      tell("set server #{@backend}/#{server} state drain")
      wait_for("the last response of #{server}") { servers.fetch(server).fetch("scur") == "0" }
      yield server
    ensure
      # What HAProxy knows is of the old process: down it is, until the new one has passed its checks.
      tell("set server #{@backend}/#{server} health down")
      tell("set server #{@backend}/#{server} state ready")
    end
    wait_for("all to be up") { up? }
  end

  # @return [Hash{String => Hash{String => String}}] what HAProxy counts of each server
  def servers
    names, *lines = tell("show stat").lines(chomp: true).reject(&:empty?)
    names = names.delete_prefix("# ").split(",")
    rows = lines.map { |line| names.zip(line.split(",", -1)).to_h }
    rows.select { |row| row["pxname"] == @backend && row["svname"] != "BACKEND" }.to_h { |row| [row["svname"], row] }
  end

  # @return [Boolean] whether every server passes its checks, and is none on its way up or down ("UP 1/2")
  def up?
    servers.values.all? { |row| row["status"] == "UP" && row["check_status"].end_with?("L7OK") }
  end

  private

  def tell(command)
    UNIXSocket.open(@admin_socket) do |socket|
      socket.puts(command)
      socket.read
    end
  end

  def wait_for(what)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + @patience
    until yield
      raise "#{what}: not within #{@patience} s" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

      sleep POLL
    end
  end
end

if $PROGRAM_NAME == __FILE__
  admin_socket, backend, *command = ARGV
  abort "usage: rolling_restart.rb ADMIN_SOCKET BACKEND COMMAND..., where SERVER stands for its name" if command.empty?

  RollingRestart.new(admin_socket, backend).run do |server|
    system(*command.map { |word| word.gsub("SERVER", server) }, exception: true)
    puts "#{server} is restarted"
  end
end
