# frozen_string_literal: true

# The versions that README and the code promise are those of docs/servers.md, which `rake servers:matrix` writes.
require "hyperion/http/sendfile/rack"

RSpec.describe "the table of servers that were tested" do
  root = File.expand_path("../..", __dir__)
  cells = ->(line) { line.split("|").map(&:strip).drop(1) }
  rows = File.readlines(File.join(root, "docs/servers.md")).grep(/\A\| \d/).map(&cells)
  # By name: a server's versions, and those of gems beside it, in parentheses.
  tested = rows.each_with_object(Hash.new { |all, name| all[name] = [] }) do |(_, server, version), all|
    "#{server} #{version}".scan(/([a-z][\w-]*) (\d[\d.]*)/) { |name, number| all[name] << Gem::Version.new(number) }
  end

  it "has no line that failed" do
    expect(rows.flatten).not_to include("NO")
  end

  it "reaches from the oldest to the newest version that README names" do
    readme = File.readlines(File.join(root, "README.md"))
    servers = readme.drop_while { |line| !line.start_with?("| server |") }.drop(2).take_while { |line| line[0] == "|" }
    names = servers.map(&cells).map(&:first).grep_v(%r{HTTP/2}).join(", ")
    promised = names.scan(/([A-Za-z][\w-]*) (\d[\d.]*)(?: to (\d[\d.]*))?/)
    expect(promised.map(&:first)).to include("Puma", "unicorn", "pitchfork")
    promised.each do |name, oldest, newest|
      versions = tested.fetch(name.downcase)
      expect("#{name} #{versions.min}.").to start_with("#{name} #{oldest}.")
      expect("#{name} #{versions.max}.").to start_with("#{name} #{newest || oldest}.")
    end
  end

  it "reaches to both ends of what the code takes" do
    S.const_get(:ServerSocket).const_get(:SERVERS).each do |server|
      versions = tested.fetch(server.key[/\A[a-z]+/])
      known = server.instance_variable_get(:@versions)
      bounds = Gem::Requirement.new(known)
      expect([server.key, versions.reject { |version| bounds.satisfied_by?(version) }]).to eq([server.key, []])
      known.grep(/\A</) do |bound|
        limit = bound[/[\d.]+/]
        following = versions.max.segments.first(limit.split(".").size).tap { |parts| parts[-1] += 1 }
        expect("#{server.key} < #{following.join(".")}").to eq("#{server.key} #{bound}")
      end
    end
  end
end
