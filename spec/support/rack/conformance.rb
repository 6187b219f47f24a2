# frozen_string_literal: true

# What a file server owes its clients, by any way in: the including group says by `client` how a request is made
# (client.call(method, target, headers) => RackSite::Answer), to an app that is RackSite.app. The target is sent as it
# stands, undecoded and unresolved. spec/rack/README.md says which case comes from where.
require_relative "site"

module RackRequests
  DATE = "Sat, 29 Feb 2020 12:34:56 GMT"
  DATES = { "IMF-fixdate" => DATE, "RFC 850" => "Saturday, 29-Feb-20 12:34:56 GMT",
            "asctime" => "Sat Feb 29 12:34:56 2020" }.freeze
  BEFORE = "Sat, 29 Feb 2020 12:34:55 GMT"
  AFTER = "Sat, 29 Feb 2020 12:34:57 GMT"
  NO_DATES = ["2020-02-29 12:34:56 +0000", "Sat, 29 Feb 2020 12:34:56", "Sat, 29 Feb 2020 12:34:56 CET", "yesterday",
              "",
              "Sat, 30 Feb 2020 12:34:56 GMT", "sat, 29 feb 2020 12:34:56 gmt", "#{DATE}, #{DATE}"].freeze

  # Header fields in a Hash or as keywords.
  def request(method, path, headers = {}, variant: "plain", **fields)
    client.call(method, "/#{variant}#{path}", headers.merge(fields))
  end

  def get(path, headers = {}, **rest)
    request("GET", path, headers, **rest)
  end

  def etag(path = "/letters.txt", **options)
    get(path, **options)["etag"]
  end
end

RSpec.shared_examples "a file server" do
  include RackRequests

  text = RackSite::TEXT
  large = RackSite::LARGE
  date = RackRequests::DATE

  describe "the file (RFC 9110, 9.3.1; Rack::Files)" do
    it "is sent whole, with what there is to say of it" do
      answer = get("/letters.txt")
      expect([answer.status, answer.body]).to eq([200, text])
      expect(answer.headers).to include("content-length" => text.bytesize.to_s, "content-type" => "text/plain",
                                        "last-modified" => date, "accept-ranges" => "bytes")
      expect(answer["etag"]).to match(/\A"[0-9a-f-]+"\z/)
      expect(answer.headers.keys).not_to include("content-range", "content-encoding", "vary", "cache-control",
                                                 "transfer-encoding", "x-cascade")
    end

    it "is sent whole when it is large" do
      answer = get("/large.bin")
      expect([answer.status, answer["content-length"]]).to eq([200, large.bytesize.to_s])
      expect(answer.body).to be_payload(large)
    end

    it "can be empty" do
      answer = get("/empty")
      expect([answer.status, answer["content-length"], answer.body]).to eq([200, "0", ""])
    end

    it "has the type of its extension, whatever its case, with no charset made up" do
      expect(get("/page.html")["content-type"]).to eq("text/html")
      expect(get("/UPPER.HTML")["content-type"]).to eq("text/html")
      expect(get("/large.bin")["content-type"]).to eq("application/octet-stream")
    end

    it "has the default type where there is no known extension" do
      expect(get("/letters")["content-type"]).to eq("text/plain")
      expect(get("/letters", variant: "octets")["content-type"]).to eq("application/octet-stream")
      expect(get("/letters", variant: "typeless").headers).not_to include("content-type")
    end

    it "comes with the headers of the application" do
      expect(get("/letters.txt", variant: "headers").headers)
        .to include("cache-control" => "public, max-age=38", "access-control-allow-origin" => "*")
    end

    it "is what it was, when it is asked for again" do
      expect(get("/letters.txt").headers.except("date")).to eq(get("/letters.txt").headers.except("date"))
    end

    it "does not depend on the query" do
      expect(get("/letters.txt?v=%2E%2E&q=1").body).to eq(text)
    end
  end

  describe "HEAD (RFC 9110, 9.3.2)" do
    ["/letters.txt", "/large.bin", "/empty", "/missing", "/folder"].each do |path|
      it "is answered as GET is, without a body: #{path}" do
        answer = request("HEAD", path)
        full = get(path)
        expect(answer.body).to eq("")
        expect([answer.status, answer.headers.except("date")]).to eq([full.status, full.headers.except("date")])
      end
    end

    it "takes no notice of Range (14.2)" do
      answer = request("HEAD", "/letters.txt", "range" => "bytes=0-3")
      expect([answer.status, answer["content-length"], answer["content-range"]]).to eq([200, text.bytesize.to_s, nil])
    end

    it "takes no notice of a Range that can't be satisfied" do
      expect(request("HEAD", "/letters.txt", "range" => "bytes=9999-").status).to eq(200)
    end

    it "is answered 304 as GET is" do
      answer = request("HEAD", "/letters.txt", "if-none-match" => etag)
      expect([answer.status, answer["etag"], answer.body]).to eq([304, etag, ""])
    end

    it "is answered 412 as GET is" do
      answer = request("HEAD", "/letters.txt", "if-match" => '"another"')
      expect([answer.status, answer.body]).to eq([412, ""])
    end
  end

  describe "methods (RFC 9110, 9.3.7, 10.2.1, 15.5.6)" do
    %w[POST PUT PATCH DELETE].each do |method|
      it "answers 405 to #{method}, and says what is allowed" do
        answer = request(method, "/letters.txt")
        expect([answer.status, answer["allow"].split(/, */).sort]).to eq([405, %w[GET HEAD OPTIONS]])
        expect(answer["content-length"]).to eq(answer.body.bytesize.to_s)
      end
    end

    it "says to OPTIONS what is allowed" do
      answer = request("OPTIONS", "/letters.txt")
      expect([answer.status, answer["allow"].split(/, */).sort, answer.body]).to eq([200, %w[GET HEAD OPTIONS], ""])
    end

    it "takes no notice of preconditions in OPTIONS (13.2.1)" do
      expect(request("OPTIONS", "/letters.txt", "if-match" => '"another"').status).to eq(200)
    end

    it "has no options for what is missing" do
      expect(request("OPTIONS", "/missing").status).to eq(404)
    end
  end

  describe "paths (RFC 3986, 2.1 and 5.2.4)" do
    {
      "/%6Cetters.tx%74" => "percent-encoded", "/you+me.txt" => "a plus is a plus", "/you%2Bme.txt" => "encoded plus",
      "/a%20b.txt" => "a blank", "/100%25.txt" => "an encoded percent", "/h%C3%A9.txt" => "UTF-8",
      "/a%252Fb.txt" => "decoded once", "/semi;colon" => "a semicolon", "/q%3F.txt" => "an encoded question mark",
      "/folder/inner.txt" => "a folder", "//folder///inner.txt" => "doubled slashes", "/./folder/./inner.txt" => "dots",
      "/folder%2Finner.txt" => "an encoded slash", "/folder/../letters.txt" => "up and down",
      "/folder/%2E%2E/letters.txt" => "encoded, up and down", "/folder/%2e./letters.txt" => "half encoded",
      "/folder/inner/../../letters.txt" => "twice up", "/missing/../letters.txt" => "by the text alone",
      "/dots.." => "a name that ends in dots", "/..dots" => "a name that begins with dots", "/..." => "three dots",
      "/.hidden" => "a hidden file"
    }.each do |path, meaning|
      it "serves #{path} (#{meaning})" do
        answer = get(path)
        expect([answer.status, answer.body]).to eq([200, text])
      end
    end

    {
      "/missing" => "nothing there", "/missing/letters.txt" => "no such folder", "/folder" => "a folder",
      "/" => "the root",
      "/folder/" => "a folder with its slash", "/letters.txt/" => "a file with a slash",
      "/letters.txt/x" => "below a file",
      "/letters.txt/." => "a file with a dot", "/letters.txt/.." => "ends in dots", "/LETTERS.TXT" => "another case",
      "/../secret.txt" => "up", "/../letters.txt" => "up, to a name that is in the root",
      "/folder/../../letters.txt" => "in, up and up, to a name in the root",
      "/../root/letters.txt" => "up and in again",
      "/folder/../../secret.txt" => "in and up",
      "/%2E%2E/secret.txt" => "encoded", "/%2e%2e%2fsecret.txt" => "slash encoded, too", "/..%2fsecret.txt" => "half",
      "/%252e%252e/secret.txt" => "encoded twice", "/..%5csecret.txt" => "a backslash",
      "/../root-beside/secret.txt" => "a neighbour that begins as the root", "-beside/secret.txt" => "the same, glued",
      "/#{"../" * 30}etc/passwd" => "far up", "/#{"x" * 300}" => "a name too long", "/fifo" => "a FIFO",
      "/#{"x/" * 900}y" => "a deep path", "/folder/#{"./" * 500}missing" => "many dots", "/%20" => "a blank",
      "/to-secret" => "a link out of the root", "/to-beside/secret.txt" => "a linked folder out of the root",
      "/loop" => "links in a circle", "/dangling" => "a link to nowhere", "/to-device" => "a link to a device"
    }.each do |path, meaning|
      it "finds nothing at #{path[0, 60]} (#{meaning})" do
        answer = get(path)
        expect(answer.status).to eq(404)
        expect(answer.headers).to include("content-type" => "text/plain", "content-length" => answer.body.bytesize.to_s)
        expect(answer.body).not_to include(RackSite::SECRET)
      end
    end

    {
      "/letters.txt%00" => "NUL", "/letters.txt%00.html" => "NUL within", "/%zz" => "no digits",
      "/letters%2" => "one digit",
      "/%" => "no digit", "/h%E9.txt" => "Latin-1", "/%C0%AE%C0%AE/secret.txt" => "overlong UTF-8",
      "/%ED%A0%80" => "a surrogate", "/%FF" => "no character"
    }.each do |path, meaning|
      it "refuses #{path} (#{meaning})" do
        answer = get(path)
        expect(answer.status).to eq(400)
        expect(answer.body).not_to include(RackSite::SECRET)
      end
    end
  end

  describe "symbolic links" do
    it "are followed within the root" do
      expect(get("/to-letters").body).to eq(text)
      expect(get("/to-folder/inner.txt").body).to eq(text)
    end

    it "are followed out of it where the application says so" do
      expect(get("/to-secret", variant: "follow").body).to eq(RackSite::SECRET)
      expect(get("/to-beside/secret.txt", variant: "follow").body).to eq(RackSite::SECRET)
      expect(get("/to-device", variant: "follow").status).to eq(404)
    end

    it "are not followed where the application says so" do
      expect(["/to-letters", "/to-folder/inner.txt", "/to-secret"].map { |path| get(path, variant: "refuse").status })
        .to eq([404, 404, 404])
      expect(get("/folder/inner.txt", variant: "refuse").body).to eq(text)
    end
  end

  describe "validators (RFC 9110, 8.8)" do
    it "differ between files" do
      expect(etag("/letters")).not_to eq(etag("/only.txt"))
    end

    it "are the same for parts as for the whole (15.3.7)" do
      part = get("/letters.txt", "range" => "bytes=1-2")
      expect(part.headers).to include("etag" => etag, "last-modified" => date)
    end

    it "can do without a tag, and then 304 has the date" do
      expect(get("/letters.txt", variant: "tagless").headers).not_to include("etag")
      answer = get("/letters.txt", { "if-modified-since" => date }, variant: "tagless")
      expect([answer.status, answer["last-modified"]]).to eq([304, date])
    end

    it "are made of what the application says" do
      expect(etag("/letters", variant: "tag-of-size")).to eq(etag("/letters.txt", variant: "tag-of-size"))
    end
  end

  describe "304 (RFC 9110, 15.4.5)" do
    it "has no body, and of the headers none that describe the content" do
      answer = get("/letters.txt", { "if-none-match" => etag(variant: "headers") }, variant: "headers")
      expect([answer.status, answer.body]).to eq([304, ""])
      expect(answer.headers).to include("etag" => etag, "cache-control" => "public, max-age=38")
      expect(answer.headers.keys).not_to include("content-length", "content-type", "content-range", "last-modified",
                                                 "transfer-encoding")
    end

    it "has every other field, those too that begin with content-: a cache goes by them from then on" do
      policy = { "content-security-policy" => "default-src 'self'", "content-disposition" => "inline",
                 "content-security-policy-report-only" => "default-src 'none'", "content-location" => "/elsewhere",
                 "cross-origin-embedder-policy" => "require-corp", "x-frame-options" => "DENY",
                 "expires" => "Thu, 01 Dec 2044 16:00:00 GMT", "accept-ranges" => "bytes" }
      whole = get("/letters.txt", variant: "policies").headers
      answer = get("/letters.txt", { "if-none-match" => whole["etag"] }, variant: "policies")
      expect(answer.status).to eq(304)
      expect(answer.headers).to include(policy)
      gone = %w[content-type content-length content-language last-modified]
      expect(whole.keys).to include(*gone)
      expect(answer.headers.keys).not_to include(*gone)
    end

    it "names the tag as weak to who has it as a weak one, since a cache looks for what it has stored under that" do
      tag = etag
      [["W/#{tag}", "W/#{tag}"], ["\"x\", W/#{tag}", "W/#{tag}"], ["W/#{tag}, #{tag}", tag], ["*", tag],
       ["W/\"x\", #{tag}", tag]].each do |field, expected|
        answer = get("/letters.txt", "if-none-match" => field)
        expect([field, answer.status, answer["etag"]]).to eq([field, 304, expected])
      end
    end

    it "has vary, if the whole had it" do
      answer = get("/forms.css", { "if-none-match" => "*" }, variant: "coded")
      expect([answer.status, answer["vary"]]).to eq([304, "origin, accept-encoding"])
    end
  end

  describe "If-None-Match (RFC 9110, 13.1.2)" do
    it "means: not this one" do
      tag = etag
      [tag, "W/#{tag}", "*", "\"x\", #{tag}", "W/\"x\" ,\t#{tag}", ",, #{tag},", "\"a,b\",#{tag}"].each do |field|
        expect(get("/letters.txt", "if-none-match" => field).status).to eq(304), field
      end
    end

    it "matches nothing else" do
      tag = etag
      ['"x"', tag.delete('"'), "#{tag} \"x\"", "\"x#{tag}", "w/#{tag}", "W/ #{tag}", "\"x\", *", "",
       ","].each do |field|
        answer = get("/letters.txt", "if-none-match" => field)
        expect([answer.status, answer.body]).to eq([200, text]), field
      end
    end

    it "counts for more than If-Modified-Since (13.2.2)" do
      expect(get("/letters.txt", "if-none-match" => '"x"', "if-modified-since" => date).status).to eq(200)
      expect(get("/letters.txt", "if-none-match" => etag,
                                 "if-modified-since" => RackRequests::BEFORE).status).to eq(304)
    end

    it "comes before Range (14.2)" do
      expect(get("/letters.txt", "if-none-match" => etag, "range" => "bytes=0-1").status).to eq(304)
      expect(get("/letters.txt", "if-none-match" => etag, "range" => "bytes=9999-").status).to eq(304)
    end
  end

  describe "If-Match (RFC 9110, 13.1.1)" do
    it "lets pass what it names" do
      tag = etag
      [tag, "*", "\"x\", #{tag}", "#{tag},"].each do |field|
        expect(get("/letters.txt", "if-match" => field).status).to eq(200), field
      end
    end

    it "lets nothing else pass; a weak tag names nothing (8.8.3.2)" do
      tag = etag
      ['"x"', "W/#{tag}", tag.delete('"'), "", "#{tag} x"].each do |field|
        answer = get("/letters.txt", "if-match" => field)
        expect(answer.status).to eq(412), field
        expect(answer["content-length"]).to eq(answer.body.bytesize.to_s)
      end
    end

    it "is about what exists (13.2.1)" do
      expect(get("/missing", "if-match" => "*").status).to eq(404)
    end

    it "counts for more than If-Unmodified-Since, and comes before all others (13.2.2)" do
      tag = etag
      expect(get("/letters.txt", "if-match" => tag, "if-unmodified-since" => RackRequests::BEFORE).status).to eq(200)
      expect(get("/letters.txt", "if-match" => '"x"', "if-none-match" => tag).status).to eq(412)
      expect(get("/letters.txt", "if-match" => tag, "if-none-match" => tag).status).to eq(304)
      expect(get("/letters.txt", "if-match" => '"x"', "range" => "bytes=0-1").status).to eq(412)
    end
  end

  describe "If-Modified-Since (RFC 9110, 13.1.3)" do
    RackRequests::DATES.each do |form, date_in_form|
      it "is answered 304 by that date, as #{form}" do
        expect(get("/letters.txt", "if-modified-since" => date_in_form).status).to eq(304)
      end
    end

    it "is answered 304 by a later date" do
      [RackRequests::AFTER, "Fri, 31 Dec 2094 23:59:59 GMT"].each do |later|
        expect(get("/letters.txt", "if-modified-since" => later).status).to eq(304), later
      end
    end

    it "is answered in full by an earlier date" do
      [RackRequests::BEFORE, "Saturday, 29-Feb-92 12:34:56 GMT", "Sun Nov  6 08:49:37 1994"].each do |earlier|
        expect(get("/letters.txt", "if-modified-since" => earlier).body).to eq(text), earlier
      end
    end

    it "is nothing where it is no date" do
      RackRequests::NO_DATES.each do |field|
        expect(get("/letters.txt", "if-modified-since" => field).status).to eq(200), field
      end
    end
  end

  describe "If-Unmodified-Since (RFC 9110, 13.1.4)" do
    RackRequests::DATES.each do |form, date_in_form|
      it "lets pass by that date, as #{form}" do
        expect(get("/letters.txt", "if-unmodified-since" => date_in_form).status).to eq(200)
      end
    end

    it "lets pass by a later date, and not by an earlier one" do
      expect(get("/letters.txt", "if-unmodified-since" => RackRequests::AFTER).status).to eq(200)
      expect(get("/letters.txt", "if-unmodified-since" => RackRequests::BEFORE).status).to eq(412)
    end

    it "is nothing where it is no date" do
      RackRequests::NO_DATES.each do |field|
        expect(get("/letters.txt", "if-unmodified-since" => field).status).to eq(200), field
      end
    end

    it "comes before If-None-Match and Range (13.2.2)" do
      earlier = { "if-unmodified-since" => RackRequests::BEFORE }
      expect(get("/letters.txt", { "if-none-match" => etag, **earlier }).status).to eq(412)
      expect(get("/letters.txt", { "range" => "bytes=0-1", **earlier }).status).to eq(412)
    end
  end

  describe "Range (RFC 9110, 14.1.2, 14.2, 15.3.7)" do
    { "/letters.txt" => text.b, "/large.bin" => large }.each do |path, content|
      size = content.bytesize
      {
        "bytes=0-0" => [0, 1], "bytes=4-10" => [4, 7], "bytes=0-" => [0, size], "bytes=5-" => [5, size - 5],
        "bytes=-1" => [size - 1, 1], "bytes=-20" => [size - 20, 20], "bytes=-99999999" => [0, size],
        "bytes=10-99999999" => [10, size - 10], "bytes=#{size - 1}-" => [size - 1, 1], "BYTES=1-2" => [1, 2],
        "bytes=0-99999999999999999999999999" => [0, size], "bytes=007-0000000000000000000000000009" => [7, 3],
        "bytes=,1-2,," => [1, 2], "bytes= 1-2 " => [1, 2], "bytes=1-2,999999999-" => [1, 2],
        "bytes=999999999-,1-2" => [1, 2],
        "bytes=4-8,6-10" => [4, 7], "bytes=6-10,4-8" => [4, 7], "bytes=0-,-5" => [0, size]
      }.each do |field, (offset, length)|
        it "serves #{field} of #{path}" do
          answer = get(path, "range" => field)
          expect([answer.status, answer["content-range"], answer["content-length"]])
            .to eq([206, "bytes #{offset}-#{offset + length - 1}/#{size}", length.to_s])
          expect(answer.body).to be_payload(content.byteslice(offset, length))
        end
      end

      ["bytes=#{size}-", "bytes=999999999-", "bytes=-0", "bytes=#{size}-#{size},-0",
       "bytes=99999999999999999999-"].each do |field|
        it "can't satisfy #{field} of #{path} (15.5.17)" do
          answer = get(path, "range" => field)
          expect([answer.status, answer["content-range"]]).to eq([416, "bytes */#{size}"])
          expect(answer.headers).to include("content-type" => "text/plain",
                                            "content-length" => answer.body.bytesize.to_s)
        end
      end
    end

    ["bytes", "bytes=", "bytes=-", "bytes=,", "bytes=5-3", "bytes=0-1,5-3", "bytes=a-b", "bytes=1.5-3", "bytes=0x0-5",
     "bytes=0-5x", "bytes=0-5;", "bytes=+0-5", "bytes=--5", "bytes=0--5", "bytes=0- 5", "bytes=0 -5", "bytes =0-5",
     "bytes:0-5", "bytes 0-5", "0-5", "items=0-5", "none", "bytes=0-5 6-7", "bytes=1-2-3", "bytes=5", "", "=0-5",
     "bytes=0-5, x", "bytes=\u0660-\u0665"].each do |field|
      it "takes no notice of #{field.inspect}" do
        answer = get("/letters.txt", "range" => field)
        expect([answer.status, answer.body, answer["content-range"]]).to eq([200, text, nil])
      end
    end

    it "has the headers of the application in a part, too" do
      answer = get("/letters.txt", { "range" => "bytes=0-1" }, variant: "headers")
      expect(answer.headers).to include("cache-control" => "public, max-age=38", "content-type" => "text/plain",
                                        "accept-ranges" => "bytes")
    end

    ["bytes=0-", "bytes=0-0", "bytes=5-", "bytes=-5", "bytes=-0", "bytes=0-,1-"].each do |field|
      it "is the whole of an empty file (#{field}), as nginx, Go and Rack::Files have it" do
        answer = get("/empty", "range" => field)
        expect([answer.status, answer["content-range"], answer["content-length"]]).to eq([200, nil, "0"])
        expect(answer.body).to eq("")
      end
    end

    it "is about what exists" do
      expect(get("/missing", "range" => "bytes=0-1").status).to eq(404)
    end
  end

  describe "several ranges (RFC 9110, 14.6, 15.3.7.2)" do
    { "/letters.txt" => text.b, "/large.bin" => large }.each do |path, content|
      size = content.bytesize
      {
        "bytes=22-33, 60-69" => [[22, 12], [60, 10]], "bytes=60-69,22-33" => [[60, 10], [22, 12]],
        "bytes=0-0,-1" => [[0, 1], [size - 1, 1]], "bytes=0-4,5-9" => [[0, 5], [5, 5]],
        "bytes=40-49,0-9,5-14" => [[40, 10], [0, 15]], "bytes=0-9,40-49,5-14" => [[0, 15], [40, 10]],
        "bytes=0-1,999999999-,4-5" => [[0, 2], [4, 2]], "bytes=0-0,2-2,4-4,6-6" => [[0, 1], [2, 1], [4, 1], [6, 1]]
      }.each do |field, ranges|
        it "serves #{field} of #{path}" do
          answer = get(path, "range" => field)
          expect([answer.status, answer["content-length"]]).to eq([206, answer.body.bytesize.to_s])
          expect(answer.headers).not_to include("content-range")
          expect(answer.parts.map { |headers, _| headers["content-range"] })
            .to eq(ranges.map { |offset, length| "bytes #{offset}-#{offset + length - 1}/#{size}" })
          answer.parts.zip(ranges) { |(_, part), range| expect(part).to be_payload(content.byteslice(*range)) }
        end
      end
    end

    it "says in every part of what type it is" do
      parts = get("/page.html", "range" => "bytes=0-1,4-5").parts
      expect(parts.map { |headers, _| headers["content-type"] }).to eq(["text/html", "text/html"])
      parts = get("/letters", { "range" => "bytes=0-1,4-5" }, variant: "typeless").parts
      expect(parts.map { |headers, _| headers.keys }).to eq([["content-range"], ["content-range"]])
    end

    it "has another boundary each time" do
      field = { "range" => "bytes=0-1,4-5" }
      expect(get("/letters.txt", field)["content-type"]).not_to eq(get("/letters.txt", field)["content-type"])
    end

    it "takes no notice of too many, or of too many that overlap (17.15)" do
      ["bytes=#{Array.new(257) { |i| "#{i * 2}-#{i * 2}" }.join(",")}", "bytes=#{Array.new(16, "0-").join(",")}",
       "bytes=0-9,1-9,2-9,3-9", "bytes=#{"0-0," * 2000}"].each do |field|
        answer = get("/letters.txt", "range" => field)
        expect([answer.status, answer.body]).to eq([200, text]), field[0, 60]
      end
    end

    it "serves as many as the greediest clients ask for (zsync 20, zchunk 255, librepo 256)" do
      [20, 255, 256].each do |count|
        ranges = Array.new(count) { |i| "#{i * 700}-#{(i * 700) + 5}" }
        answer = get("/large.bin", "range" => "bytes=#{ranges.join(",")}")
        expect(answer.status).to eq(206)
        expect(answer["content-length"]).to eq(answer.body.bytesize.to_s)
        expect(answer.parts.map(&:last)).to eq(Array.new(count) { |i| large.byteslice(i * 700, 6) })
      end
    end

    it "has an empty line before the first boundary, which zsync takes for granted (RFC 2046, 5.1.1)" do
      expect(get("/letters.txt", "range" => "bytes=0-1,4-5").body).to start_with("\r\n--")
    end

    it "has its limits from the application" do
      statuses = ["bytes=0-0,2-2", "bytes=0-0,2-2,4-4", "bytes=0-3,2-4"].map do |field|
        get("/letters.txt", { "range" => field }, variant: "few").status
      end
      expect(statuses).to eq([206, 200, 200])
    end
  end

  describe "If-Range (RFC 9110, 13.1.5)" do
    def status_if(validator, range = "bytes=0-3")
      get("/letters.txt", "range" => range, "if-range" => validator).status
    end

    it "lets the range count by the tag" do
      expect(status_if(etag)).to eq(206)
    end

    RackRequests::DATES.each do |form, date_in_form|
      it "lets the range count by the date, as #{form}" do
        expect(status_if(date_in_form)).to eq(206)
      end
    end

    it "sends the whole by anything else" do
      ['"x"', "W/#{etag}", etag.delete('"'), "*", "#{etag}, \"x\"", RackRequests::BEFORE, RackRequests::AFTER, "x",
       ""].each do |validator|
        expect(status_if(validator)).to eq(200), validator
      end
    end

    it "sends the whole rather than 416" do
      expect(status_if('"x"', "bytes=9999-")).to eq(200)
      expect(status_if(etag, "bytes=9999-")).to eq(416)
    end

    it "is nothing without Range" do
      expect(get("/letters.txt", "if-range" => '"x"').status).to eq(200)
    end
  end

  describe "forms that are compressed already (RFC 9110, 12.5.3, 12.5.5, 8.4)" do
    forms = RackSite::FORMS

    def form(accept, path = "/forms.css", **options)
      answer = get(path, accept ? { "accept-encoding" => accept } : {}, variant: "coded", **options)
      [answer.status, answer["content-encoding"], answer.body]
    end

    {
      "br" => "br", "gzip" => "gzip", "gzip, br" => "br", "gzip, deflate, br, zstd" => "br", "BR" => "br",
      "x-gzip" => "gzip",
      "*" => "br", "gzip;q=0.5, br;q=0.4" => "gzip", "br;q=0, gzip" => "gzip", "br;q=0, *" => "gzip",
      "gzip;q=1.000 , br;q=0.999" => "gzip", "br;q=0.001" => "br", "identity;q=0, gzip" => "gzip",
      "*;q=0, gzip" => "gzip",
      "gzip; Q=0.3" => "gzip", "identity;q=0.5, gzip;q=0.5" => "gzip",
      "identity" => nil, "" => nil, "deflate" => nil, "gzip;q=0" => nil, "identity, gzip;q=0.5" => nil,
      "*;q=0.0" => 406,
      "identity;q=0" => 406, "br;q=0, gzip;q=0, *;q=0" => 406, "gzip;q=2" => nil, "gzip;;" => nil, nil => nil
    }.each do |field, coding|
      it "chooses by #{field.inspect}: #{coding.inspect}" do
        suffix = { "br" => ".br", "gzip" => ".gz" }[coding]
        next expect(form(field).first).to eq(406) if coding == 406

        expect(form(field)).to eq([200, coding, forms.fetch(suffix)])
      end
    end

    it "says by vary that there was a choice, also where there is one form only" do
      %w[/forms.css /only.txt].each do |path|
        expect(get(path, variant: "coded")["vary"]).to eq("origin, accept-encoding")
      end
      expect(get("/forms.css", { "accept-encoding" => "identity;q=0" }, variant: "coded")["vary"])
        .to eq("origin, accept-encoding")
    end

    it "keeps the type of the name that was asked for" do
      expect(get("/forms.css", { "accept-encoding" => "br" }, variant: "coded")["content-type"]).to eq("text/css")
    end

    it "takes the next best form, where there is one" do
      expect(form("br, gzip;q=0.1", "/zipped.js")).to eq([200, "gzip", "zipped\n"])
      expect(form("br, gzip", "/only.txt")).to eq([200, nil, "there is no other form\n"])
    end

    it "goes by what the application says there is" do
      answer = get("/forms.css", { "accept-encoding" => "br, gzip;q=0.1" }, variant: "gzip")
      expect(answer["content-encoding"]).to eq("gzip")
      expect(get("/forms.css", "accept-encoding" => "br").headers).not_to include("content-encoding", "vary")
    end

    it "has a tag for each form, by which it is asked for again (8.8.3.3)" do
      tags = %w[br gzip identity].map do |coding|
        get("/forms.css", { "accept-encoding" => coding }, variant: "coded")["etag"]
      end
      expect(tags.uniq.size).to eq(3)
      again = get("/forms.css", { "accept-encoding" => "gzip", "if-none-match" => tags[1] }, variant: "coded")
      expect([again.status, again["etag"]]).to eq([304, tags[1]])
      another = get("/forms.css", { "accept-encoding" => "br", "if-none-match" => tags[1] }, variant: "coded")
      expect(another.status).to eq(200)
    end

    it "serves parts of the form" do
      answer = get("/forms.css", { "accept-encoding" => "br", "range" => "bytes=3-4" }, variant: "coded")
      expect([answer.status, answer["content-encoding"], answer["content-range"], answer.body])
        .to eq([206, "br", "bytes 3-4/#{forms[".br"].bytesize}", forms[".br"][3, 2]])
    end

    it "finds nothing where there is none, whatever is accepted" do
      expect(form("identity;q=0", "/missing").first).to eq(404)
      expect(form("br", "/missing").first).to eq(404)
    end

    it "says by vary that another request might find one" do
      expect([get("/sealed.css", variant: "coded").status, form("br", "/sealed.css").first]).to eq([404, 200])
      [["/sealed.css", {}, 404], ["/forms.css", { "if-match" => '"x"' }, 412],
       ["/forms.css", { "range" => "bytes=999-" }, 416]].each do |path, headers, status|
        answer = get(path, headers, variant: "coded")
        expect([path, answer.status, answer["vary"]]).to eq([path, status, "origin, accept-encoding"])
      end
      expect(get("/missing").headers).not_to include("vary")
    end

    it "does not follow a form's link out of the root" do
      expect(form("br", "/letters.txt")).to eq([200, nil, text])
    end

    it "is the file itself by its own name" do
      expect(form("gzip")).to eq([200, "gzip", forms[".gz"]])
      expect(form("gzip", "/forms.css.gz")).to eq([200, nil, forms[".gz"]])
      expect(form("gzip")).to eq([200, "gzip", forms[".gz"]])
    end
  end
end
