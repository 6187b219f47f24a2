# frozen_string_literal: true

# Probes the functions of the system and of this Ruby, and compiles the matching file of each set of alternatives from
# the folders ruby/, core/ and os/. If nothing can be compiled (no compiler, JRuby, TruffleRuby), it writes a Makefile
# that does nothing, and lib/ works without the extension.
#
#   --enable-strict, or HYPERION_STRICT=1   all warnings, as errors
#   HYPERION_PLATFORM=portable              as if the system had no sendfile; or linux, darwin, freebsd
#   HYPERION_REGION=nogvl                   as if Ruby had no call to leave the GVL for a descriptor
#   HYPERION_REGION=io                      as if it were the one of Ruby 3.5
#   HYPERION_WITHOUT=newer                  as if Ruby had none of the calls that are newer than 3.1
#   HYPERION_WITHOUT=older                  as if it told nothing of what newer ones keep to themselves
#   HYPERION_WITHOUT=optional               as if libc had none of the calls that one can do without

require "mkmf"

def skip_extension(reason)
  message("#{reason}: hyperion-sendfile goes without its C extension, through userspace\n")
  # RubyGems always runs make.
  message("there is no make either: set MAKE=true in the environment\n") unless ENV["MAKE"] || find_executable("make")
  File.write("Makefile", dummy_makefile($srcdir).join)
  exit
end

skip_extension("#{RUBY_ENGINE} has no C API to build on") unless RUBY_ENGINE == "ruby"

def works?
  try_compile("#include <ruby.h>\n#include <stdatomic.h>\nint main(void) { return 0; }")
rescue RuntimeError => e # mkmf raises this if there is no compiler
  message(e.message.lines.first)
  false
end

skip_extension("no working C11 compiler") unless works?

def platform
  return ENV["HYPERION_PLATFORM"] if ENV["HYPERION_PLATFORM"]

  case RUBY_PLATFORM
  when /linux/ then have_header("sys/sendfile.h") ? "linux" : "portable"
  when /darwin/ then "darwin"
  when /freebsd|dragonfly/ then "freebsd"
  else "portable"
  end
end

WITHOUT = {
  "newer" => %w[rb_io_mode rb_io_open_descriptor rb_postponed_job_preregister rb_thread_lock_native_thread
                rb_io_buffer_get_bytes_for_reading],
  "older" => %w[wbuf],
  "optional" => %w[preadv sigtimedwait SIGEV_THREAD_ID SIOCOUTQNSD]
}.fetch(ENV.fetch("HYPERION_WITHOUT", ""), [])

def func?(name, header)
  !WITHOUT.include?(name) && have_func(name, header)
end

def const?(name, header)
  !WITHOUT.include?(name) && have_const(name, header)
end

# libruby has rb_thread_io_blocking_region(func, data, fd) up to Ruby 3.4, and (io, func, data) after that. A probe by
# name cannot tell these apart.
def region
  return "nogvl" if ENV["HYPERION_REGION"] == "nogvl" || !have_func("rb_thread_io_blocking_region")

  by_number = RbConfig::CONFIG.values_at("MAJOR", "MINOR").map(&:to_i).then { |version| (version <=> [3, 4]) <= 0 }
  return "io" unless by_number
  return "number" unless ENV["HYPERION_REGION"] == "io"

  $defs << "-Drb_thread_io_blocking_region=region_by_io"
  $VPATH << "$(srcdir)/../../spec/support/stand_in"
  "io"
end

# On some 32-bit processors, 64-bit atomics need a library of the compiler.
def counts_by_itself?
  try_link(<<~C)
    #include <stdatomic.h>
    #include <stdint.h>
    static atomic_uint_least64_t counter;
    int main(void) { return (int)atomic_fetch_add(&counter, 1); }
  C
end

have_library("atomic") unless counts_by_itself?
func?("rb_io_mode", "ruby/io.h") # and with it rb_io_closed_p
func?("rb_io_open_descriptor", "ruby/io.h") # Ruby 3.3
have_struct_member("rb_io_t", "wbuf", "ruby/io.h") unless WITHOUT.include?("wbuf") # newer Rubies hide it
func?("rb_postponed_job_preregister", "ruby/debug.h") # Ruby 3.3
func?("rb_thread_lock_native_thread", "ruby/thread.h") # Ruby 3.4
region = region()
os = platform
splice = os == "linux" && have_func("splice", "fcntl.h") ? "splice" : "splice_none"
ktls = os == "linux" && have_const("TLS_SET_RECORD_TYPE", "linux/tls.h") ? "ktls" : "ktls_none"
statx = os == "linux" && have_func("statx", "sys/stat.h")
resident = statx && have_const("RWF_NOWAIT", "sys/uio.h") ? "resident_preadv2" : "resident_none"
cork = os == "linux" ? "cork" : "cork_none"
queue = const?("SIOCOUTQNSD", "linux/sockios.h") ? "queue" : "queue_none"
opening = statx && have_const("RESOLVE_CACHED", "linux/openat2.h") ? "open_openat2" : "open_none"
alarm = os == "linux" && const?("SIGEV_THREAD_ID", "signal.h") ? "alarm_timer" : "alarm_none"
have_library("rt", "timer_create", "time.h") # if libc does not have it
preadv = func?("preadv", "sys/uio.h") ? "read_preadv" : "read_pread"
buffers = func?("rb_io_buffer_get_bytes_for_reading", "ruby/io/buffer.h") # Ruby 3.2
memory = buffers ? "memory_io_buffer" : "memory_string"
discard = func?("sigtimedwait", "signal.h") ? "discard_sigtimedwait" : "discard_sigwait"

$defs << "-D_GNU_SOURCE" << "-D_FILE_OFFSET_BITS=64"
sources = %w[hyperion_sendfile native open arguments gvl held data_frames records
             owned transfer wait sigpipe buffered small switch nagle stats framed frames] +
          [preadv, memory, "region_#{region}", "os_#{os}", splice, queue, ktls, resident, opening, cork, alarm, discard]
sources << "region_by_io" if $defs.include?("-Drb_thread_io_blocking_region=region_by_io")
$srcs = sources.map { |name| "#{name}.c" }
folders = %w[ruby core os os/linux os/darwin os/freebsd os/portable]
$VPATH.concat(folders.map { |folder| "$(srcdir)/#{folder}" })
$INCFLAGS << " -I$(srcdir)/core -I$(srcdir)/ruby"
$CFLAGS << " -std=c11 -fvisibility=hidden"

if enable_config("strict", ENV["HYPERION_STRICT"] == "1")
  $CFLAGS << " -Wall -Wextra -Werror"
  # Newer Rubies deprecate the members by which the older ones tell.
  $CFLAGS << " -Wno-deprecated-declarations" if ENV["HYPERION_WITHOUT"] == "newer"
  # No warnings about Ruby's own headers.
  $INCFLAGS.gsub!(/-I(\$\((?:hdrdir|arch_hdrdir)\)\S*)/, '-isystem \1')
end

create_makefile("hyperion/http/sendfile/hyperion_sendfile")

# mkmf knows only the headers beside this file. Appended after mkmf's own rules, because make builds the first rule.
headers = Dir.glob("{core,ruby}/*.h", base: $srcdir).map { |path| "$(srcdir)/#{path}" }
File.write("Makefile", "\n$(OBJS): #{headers.join(" ")}\n", mode: "a")
