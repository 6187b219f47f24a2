/*
 * hyperion_sendfile: sends a region of a file to a socket. This file has the public methods. Read
 * on in this order:
 *
 *   sendfile.h             the internal contract: one struct for a transfer, one function per platform
 *   ruby/arguments.c       Ruby values to descriptors and byte counts
 *   ruby/gvl.c             runs a transfer for Ruby; region_*.c releases the GVL for it
 *   ruby/native.c          the methods that only lib/ calls
 *   core/transfer.c        attempt, count, wait, repeat: no Ruby from here on
 *   core/buffered.c, core/small.c, os/.../os_*.c, os/linux/splice.c  the methods that move bytes
 *   ruby/data_frames.c, core/frames.[hc], core/framed.c           HTTP/2 DATA frames
 *   ruby/held.c, core/owned.c                      keep descriptors open during a call
 *   core/wait.c, core/sigpipe.c                    waiting, and protection against SIGPIPE
 *   ruby/records.c, os/linux/cork.c, core/nagle.c  TLS in userspace, through Ruby's OpenSSL
 *   os/linux/ktls.c        kernel TLS
 *   os/linux/queue.c       bytes that the kernel has not delivered yet
 *   os/linux/resident_preadv2.c                    the state of the page cache
 *   ruby/open.c, os/linux/open_openat2.c           files for the Rack app
 *   core/stats.c           counters
 *
 * os/portable/ has the replacements for systems that lack one of these.
 */
#include <ruby.h>
#include <ruby/io.h>

#include "glue.h"

#include <errno.h>
#include <stdatomic.h>

static ID status_ids[HS_FAILED];
static ID id_ok, id_error, id_noop;

static atomic_bool splice_marked_unsupported;
static atomic_bool keep_gvl;

VALUE
hs_status_symbol(enum hs_status status)
{
    return ID2SYM(status_ids[status]);
}

/*
 * Checks every argument before anything is opened or sent. Look up the destination's descriptor
 * last: the other conversions may call Ruby code, which could close it.
 */
static inline struct hs_call
region_call(VALUE out, VALUE in, VALUE offset, VALUE len, hs_method *method)
{
    struct hs_call call = hs_call_on(out, hs_in_source(in));

    call.transfer.in_fd = hs_in_descriptor(call.in);
    call.transfer.offset = hs_bytes(offset, "offset");
    call.transfer.length = hs_bytes(len, "len");
    call.transfer.method = method;
    hs_check_region(call.transfer.offset, call.transfer.length);
    call.transfer.out_fd = hs_out_descriptor(out);
    return call;
}

/*
 * One attempt, as [bytes, status]. A block is called with the bytes sent, even if an exception
 * prevents the result from being returned.
 */
static VALUE
one_attempt(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    call->yields = rb_block_given_p() ? 1 : 0;
    if (t->length > 0) {
        hs_call_run(call);
        hs_raise_if_failed(call);
    }
    return rb_assoc_new(OFFT2NUM(t->sent), hs_status_symbol(t->status));
}

static VALUE
splice_attempt(struct hs_call *call)
{
    VALUE outcome = one_attempt(call);

    /* Only a kernel without the system call will refuse every later transfer as well. */
    if (call->transfer.status == HS_UNSUPPORTED && call->transfer.err == ENOSYS) {
        atomic_store(&splice_marked_unsupported, true);
    }
    return outcome;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy(out, in, offset, len) -> [bytes, status]
 *   Hyperion::Http::Sendfile.copy(out, in, offset, len) { |bytes| } -> [bytes, status]
 *
 * One attempt to send +len+ bytes of +in+, from +offset+ on, by sendfile(2). It never waits for the
 * socket, whatever its mode, and moves no file position. +out+ is an IO or an Integer file
 * descriptor, +in+ the same or an object whose +to_io+ is an IO; +offset+ and +len+ are bytes.
 *
 * status is one of
 * :done::        all +len+ bytes are out
 * :partial::     some are; the caller waits until +out+ is writable and goes on behind them
 * :eagain::      none, the socket is full
 * :eof::         the file ends before +len+; the bytes are those sent before that
 * :unsupported:: this pair of descriptors or this kernel can't, nothing was sent: use another route
 *
 * A block is called with the bytes sent, if there are any, even if an interrupt (Thread#kill,
 * Timeout) prevents the call from returning them.
 *
 * Raises ArgumentError, TypeError, RangeError or IOError for a bad argument, and Errno::* for any
 * other error of the kernel. If bytes were sent before the error, the call returns them, and the
 * next call raises. See sendfile(2).
 */
static VALUE
sendfile_copy(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len)
{
    struct hs_call call = region_call(out, in, offset, len, hs_kernel_method(hs_os_sendfile));

    (void)self;
    return one_attempt(&call);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy_small(out, in, offset, len, head = nil) -> bytes
 *   Hyperion::Http::Sendfile.copy_small(out, in, offset, len, head = nil) { |bytes, head_bytes| } -> bytes
 *
 * One attempt to send a body of at most SMALL_FILE_THRESHOLD bytes, by the cheapest system calls
 * for its size. Never waits: returns 0 if the socket is full, and a short count if it fills up or
 * the file ends. +head+, a String, is sent before the body, in the same segment if it fits, and its
 * bytes count in the result. A block is called with the bytes of body and head, if any were sent,
 * even if an interrupt prevents the call from returning them.
 *
 * The count is also short if sendfile refuses the body after the head was sent, and, with
 * ::keep_gvl=, if only the beginning of the body is in the page cache.
 *
 * Raises like ::copy, and ArgumentError if +len+ is over SMALL_FILE_THRESHOLD. See pread(2),
 * send(2), sendfile(2).
 */
static VALUE
sendfile_copy_small(int argc, VALUE *argv, VALUE self)
{
    struct hs_call call;
    struct hs_transfer *t = &call.transfer;
    char head_copy[1024];
    VALUE head;

    (void)self;
    rb_check_arity(argc, 4, 5);
    call = region_call(argv[0], argv[1], argv[2], argv[3], NULL);
    if (t->length > HS_SMALL_FILE_THRESHOLD) {
        rb_raise(rb_eArgError, "len is over SMALL_FILE_THRESHOLD (%d): %" PRIsVALUE,
                 HS_SMALL_FILE_THRESHOLD, argv[3]);
    }
    head = hs_set_head(t, argc > 4 ? argv[4] : Qnil, head_copy, sizeof(head_copy));
    if (t->length == 0 && t->head_length == 0) return INT2FIX(0);

    t->method = hs_small_method(t);
    call.keep_gvl = atomic_load_explicit(&keep_gvl, memory_order_relaxed);
    call.yields = rb_block_given_p() ? 2 : 0;
    hs_call_run(&call);
    hs_raise_if_failed(&call);
    RB_GC_GUARD(head);
    return OFFT2NUM((off_t)t->head_sent + t->sent);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy_splice(out, in, offset, len) -> [bytes, status]
 *
 * Like ::copy, but by splice(2) through a pipe that is opened and closed within the call. Also
 * returns +:unsupported+ if no pipe can be opened, or if +out+ is in blocking mode.
 */
static VALUE
sendfile_copy_splice(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len)
{
    struct hs_call call =
        region_call(out, in, offset, len, hs_kernel_method(hs_splice_by_own_pipe));

    (void)self;
    return splice_attempt(&call);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy_splice_into_pipe(out, in, offset, len, pipe_r, pipe_w) -> [bytes, status]
 *
 * Like ::copy, but by splice(2) through the caller's pipe. Use a pipe for one response, and close
 * it after an error or a change of route. Bytes that an earlier call left in the pipe are the next
 * bytes of the file, at +offset+: they are sent first, and are counted when they have reached
 * +out+.
 */
static VALUE
sendfile_copy_splice_into_pipe(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len,
                               VALUE pipe_r, VALUE pipe_w)
{
    struct hs_call call = region_call(out, in, offset, len, hs_kernel_method(hs_splice));

    (void)self;
    call.pipe_r = pipe_r;
    call.pipe_w = pipe_w;
    call.transfer.pipe_r = hs_pipe_descriptor(pipe_r, "pipe_r");
    call.transfer.pipe_w = hs_pipe_descriptor(pipe_w, "pipe_w");
    return splice_attempt(&call);
}

static bool
is_positive(VALUE integer)
{
    return FIXNUM_P(integer) ? FIX2LONG(integer) > 0 : rb_big_sign(integer) != 0;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.fadvise_sequential(file, len, offset = 0) -> :ok, :error or :noop
 *
 * Tells the kernel that +len+ bytes of +file+, from +offset+ on, will be read in order, so that it
 * reads further ahead. Only a hint: +:error+ if the kernel refuses it, +:noop+ if there is no such
 * system call or +len+ is not positive. See posix_fadvise(2).
 */
static VALUE
sendfile_fadvise_sequential(int argc, VALUE *argv, VALUE self)
{
    int fd;
    off_t length, offset;

    (void)self;
    rb_check_arity(argc, 2, 3);
    fd = hs_in_descriptor(hs_in_source(argv[0]));
    if (RB_INTEGER_TYPE_P(argv[1]) && !is_positive(argv[1])) return ID2SYM(id_noop);
    length = hs_bytes(argv[1], "len");
    offset = argc > 2 ? hs_bytes(argv[2], "offset") : 0;
    hs_check_region(offset, length);

    /*
     * Called with the GVL held: the system call only stores the advice, and releasing the GVL
     * beside a busy thread would cost the transfer a second time slice.
     */
    switch (hs_os_advise_sequential(fd, offset, length)) {
    case HS_ADVICE_OK: return ID2SYM(id_ok);
    case HS_ADVICE_ERROR: return ID2SYM(id_error);
    default: return ID2SYM(id_noop);
    }
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.platform_tag -> :linux, :darwin, :bsd or :unsupported
 *
 * The system whose sendfile this build uses.
 */
static VALUE
sendfile_platform_tag(VALUE self)
{
    (void)self;
    return ID2SYM(rb_intern(hs_os_tag()));
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.supported? -> true or false
 *
 * Whether this build has sendfile(2).
 */
static VALUE
sendfile_supported_p(VALUE self)
{
    (void)self;
    return hs_os_supported() ? Qtrue : Qfalse;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.splice_supported? -> true or false
 *
 * Whether this build has splice(2).
 */
static VALUE
sendfile_splice_supported_p(VALUE self)
{
    (void)self;
    return hs_splice_compiled() ? Qtrue : Qfalse;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.mark_splice_unsupported! -> nil
 *
 * Turns the splice route off until this process ends. Only for a kernel without the system call
 * (ENOSYS): if it refuses one pair of descriptors, it may accept the next.
 */
static VALUE
sendfile_mark_splice_unsupported(VALUE self)
{
    (void)self;
    atomic_store(&splice_marked_unsupported, true);
    return Qnil;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.small_file_threshold -> 65536
 *
 * The largest +len+ that ::copy_small accepts, in bytes.
 */
static VALUE
sendfile_small_file_threshold(VALUE self)
{
    (void)self;
    return INT2FIX(HS_SMALL_FILE_THRESHOLD);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.keep_gvl = true or false
 *
 * Whether ::copy_small, and therefore every small response, keeps the GVL if nothing can block: the
 * body is in the page cache (preadv2(2) with RWF_NOWAIT), and the socket is written to with
 * MSG_DONTWAIT. Beside a busy Ruby thread, which holds the GVL for 100 ms at a time, a response
 * then takes microseconds. In return, other threads cannot run while a small body is copied twice.
 * On systems that cannot tell the state of the page cache, nothing changes. Off unless the
 * environment has HYPERION_HTTP_KEEP_GVL=1.
 */
static VALUE
sendfile_set_keep_gvl(VALUE self, VALUE keep)
{
    (void)self;
    atomic_store(&keep_gvl, RTEST(keep));
    return keep;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.keep_gvl? -> true or false
 *
 * See ::keep_gvl=.
 */
static VALUE
sendfile_keep_gvl_p(VALUE self)
{
    (void)self;
    return atomic_load(&keep_gvl) ? Qtrue : Qfalse;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.sendfile_enabled = true or false
 *
 * Whether sendfile(2) and splice(2) may be used, from the next call on. Turn this off for file
 * systems on which they deliver wrong or stale bytes, as shared folders of virtual machines, NFS,
 * SMB and FUSE have done. Everything is then read into memory and sent from there, and ::copy,
 * ::copy_splice and ::copy_splice_into_pipe return +:unsupported+. On unless the environment has
 * HYPERION_HTTP_SENDFILE=0.
 */
static VALUE
sendfile_set_sendfile_enabled(VALUE self, VALUE enabled)
{
    (void)self;
    hs_kernel_copies_set(RTEST(enabled));
    return enabled;
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.sendfile_enabled? -> true or false
 *
 * Whether this build has sendfile(2), and sendfile is not turned off: see ::sendfile_enabled=.
 */
static VALUE
sendfile_sendfile_enabled_p(VALUE self)
{
    (void)self;
    return hs_os_supported() && hs_kernel_copies() ? Qtrue : Qfalse;
}

bool
hs_splice_marked_unsupported(void)
{
    return atomic_load(&splice_marked_unsupported);
}

static void
intern_names(void)
{
    status_ids[HS_DONE] = rb_intern("done");
    status_ids[HS_PARTIAL] = rb_intern("partial");
    status_ids[HS_EAGAIN] = rb_intern("eagain");
    status_ids[HS_EOF] = rb_intern("eof");
    status_ids[HS_UNSUPPORTED] = rb_intern("unsupported");
    status_ids[HS_TIMEOUT] = rb_intern("timeout");
    status_ids[HS_WANT_READ] = rb_intern("want_read");
    status_ids[HS_INTERRUPTED] = rb_intern("interrupted");
    id_ok = rb_intern("ok");
    id_error = rb_intern("error");
    id_noop = rb_intern("noop");
}

RUBY_FUNC_EXPORTED void
Init_hyperion_sendfile(void)
{
    VALUE mHyperion, mHttp, mSendfile;

    rb_ext_ractor_safe(true);
    hs_sigpipe_init();
    hs_gvl_init();
    intern_names();

    mHyperion = rb_define_module("Hyperion");
    mHttp = rb_define_module_under(mHyperion, "Http");
    mSendfile = rb_define_module_under(mHttp, "Sendfile");
    rb_define_singleton_method(mSendfile, "copy", sendfile_copy, 4);
    rb_define_singleton_method(mSendfile, "copy_small", sendfile_copy_small, -1);
    rb_define_singleton_method(mSendfile, "copy_splice", sendfile_copy_splice, 4);
    rb_define_singleton_method(mSendfile, "copy_splice_into_pipe", sendfile_copy_splice_into_pipe,
                               6);
    rb_define_singleton_method(mSendfile, "fadvise_sequential", sendfile_fadvise_sequential, -1);
    rb_define_singleton_method(mSendfile, "platform_tag", sendfile_platform_tag, 0);
    rb_define_singleton_method(mSendfile, "supported?", sendfile_supported_p, 0);
    rb_define_singleton_method(mSendfile, "splice_supported?", sendfile_splice_supported_p, 0);
    rb_define_singleton_method(mSendfile, "mark_splice_unsupported!",
                               sendfile_mark_splice_unsupported, 0);
    rb_define_singleton_method(mSendfile, "small_file_threshold", sendfile_small_file_threshold, 0);
    rb_define_singleton_method(mSendfile, "keep_gvl=", sendfile_set_keep_gvl, 1);
    rb_define_singleton_method(mSendfile, "keep_gvl?", sendfile_keep_gvl_p, 0);
    rb_define_singleton_method(mSendfile, "sendfile_enabled=", sendfile_set_sendfile_enabled, 1);
    rb_define_singleton_method(mSendfile, "sendfile_enabled?", sendfile_sendfile_enabled_p, 0);

    hs_init_native(mSendfile);
}
