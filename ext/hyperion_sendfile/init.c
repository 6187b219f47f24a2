/*
 * hyperion_sendfile: a region of a file to a socket. Read in this order:
 *
 *   init.c       the methods that Ruby sees
 *   sendfile.h   the internal contract
 *   arguments.c  Ruby values to descriptors and byte counts
 *   gvl.c        one transfer on behalf of Ruby; region_*.c leaves the GVL for it
 *   transfer.c   attempt, count, wait, again: no Ruby from here on
 *   os_*.c, buffered.c, small.c, splice.c   the methods of moving bytes
 *   signals.c, wait_*.c            what a waiting thread needs
 *   ktls.c                         what a descriptor needs on which the kernel encrypts
 */
#include <ruby.h>
#include <ruby/io.h>

#include "sendfile.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

static ID status_ids[HS_FAILED];
static VALUE mSendfile;
static ID id_copy_small, id_turn, id_sendfile, id_buffered, id_head, id_ok, id_error, id_noop;

static atomic_bool splice_marked_unsupported;

static VALUE
status_symbol(enum hs_status status)
{
    return ID2SYM(status_ids[status]);
}

/*
 * Checks every argument before anything is opened or sent. What may run Ruby code comes first, so that
 * the destination, looked up last, is still what it was when the transfer begins.
 */
static struct hs_call
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
 * Other threads may write to the String meanwhile, so it is copied: into the space given, or else
 * into a String of its own, which the caller keeps alive for as long as the call runs.
 */
static VALUE
set_head(struct hs_transfer *t, VALUE head, char *space, size_t size)
{
    if (NIL_P(head)) return Qnil;
    if (!RB_TYPE_P(head, T_STRING)) {
        rb_raise(rb_eTypeError, "head must be a String, not %" PRIsVALUE, rb_obj_class(head));
    }
    t->head_length = (size_t)RSTRING_LEN(head);
    if (t->head_length > 0 && t->head_length <= size) {
        t->head = memcpy(space, RSTRING_PTR(head), t->head_length);
    } else {
        head = rb_str_new_frozen(head);
        t->head = RSTRING_PTR(head);
    }
    return head;
}

static hs_method *
method_named(VALUE name)
{
    ID id = SYM2ID(name);

    if (id == id_sendfile) return hs_os_sendfile;
    if (id == id_buffered) return hs_buffered;
    if (id == id_head) return hs_head_alone;
    rb_raise(rb_eArgError, "no such method: %" PRIsVALUE, name);
}

static void
raise_if_failed(const struct hs_transfer *t)
{
    if (t->status == HS_FAILED) rb_syserr_fail(t->err, NULL);
}

/*
 * One attempt, as [bytes, status]. A block gets the bytes as well, and also when an exception keeps
 * the result from being returned.
 */
static VALUE
one_attempt(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    call->yield_counts = rb_block_given_p();
    if (t->length > 0) {
        hs_call_run(call);
        raise_if_failed(t);
    }
    return rb_assoc_new(OFFT2NUM(t->sent), status_symbol(t->status));
}

static VALUE
splice_attempt(struct hs_call *call)
{
    VALUE outcome = one_attempt(call);

    /* Only a kernel without the call says something of every transfer to come. */
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
 * One attempt to send +len+ bytes of +in+, from +offset+ on, by sendfile(2); it never waits for
 * the socket, whatever mode that is in, and moves no file position. +out+ is an IO or an Integer
 * file descriptor, +in+ the same or something whose +to_io+ is an IO; +offset+ and +len+ are bytes.
 *
 * status is one of
 * :done::        all +len+ bytes are out
 * :partial::     some are; the caller waits until +out+ is writable and goes on behind them
 * :eagain::      none, the socket is full
 * :eof::         the file ends before +len+; the bytes are those sent before that
 * :unsupported:: this pair of descriptors or this kernel can't, nothing was sent: use another route
 *
 * A block gets the bytes, too, if there are any, and gets them also when an interrupt (Thread#kill,
 * Timeout) keeps them from being returned.
 *
 * Raises ArgumentError, TypeError, RangeError or IOError for a bad argument, and Errno::* for any
 * other error of the kernel; but when bytes were sent, those are returned, and the error comes with
 * the next call. See sendfile(2).
 */
static VALUE
sendfile_copy(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len)
{
    struct hs_call call = region_call(out, in, offset, len, hs_os_sendfile);

    (void)self;
    return one_attempt(&call);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy_small(out, in, offset, len, head = nil) -> bytes
 *   Hyperion::Http::Sendfile.copy_small(out, in, offset, len, head = nil) { |bytes, head_bytes| } -> bytes
 *
 * One attempt to send a body of at most SMALL_FILE_THRESHOLD bytes, by whichever system calls are
 * cheapest for its size. Never waits: 0 when the socket is full, and a short count when it fills
 * up or the file ends. +head+, a String, goes out before the body, in one segment with it where
 * that fits, and its bytes count in the result. A block gets the bytes of body and head, if there are
 * any, also when an interrupt keeps them from being returned.
 *
 * The count is short, too, when sendfile refuses the body after the head is out.
 *
 * Raises as ::copy does, and ArgumentError when +len+ is over SMALL_FILE_THRESHOLD. See pread(2),
 * sendmsg(2), sendfile(2).
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
    head = set_head(t, argc > 4 ? argv[4] : Qnil, head_copy, sizeof(head_copy));
    if (t->length == 0 && t->head_length == 0) return INT2FIX(0);

    t->method = hs_small_method(t);
    call.yield_counts = rb_block_given_p();
    hs_call_run(&call);
    raise_if_failed(t);
    RB_GC_GUARD(head);
    return OFFT2NUM((off_t)t->head_sent + t->sent);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy_splice(out, in, offset, len) -> [bytes, status]
 *
 * Like ::copy, by splice(2) through a pipe that is opened and closed within the call. +:unsupported+
 * also when there is no pipe to be had, and for an +out+ in blocking mode.
 */
static VALUE
sendfile_copy_splice(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len)
{
    struct hs_call call = region_call(out, in, offset, len, hs_splice_by_own_pipe);

    (void)self;
    return splice_attempt(&call);
}

/*
 * call-seq:
 *   Hyperion::Http::Sendfile.copy_splice_into_pipe(out, in, offset, len, pipe_r, pipe_w) -> [bytes, status]
 *
 * Like ::copy, by splice(2) through the caller's pipe, which serves one response and is thrown away
 * after an error or a change of route. What an earlier call left in the pipe is the next bytes of
 * the file, those at +offset+: it goes out first, and counts when it has reached +out+.
 */
static VALUE
sendfile_copy_splice_into_pipe(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len,
                               VALUE pipe_r, VALUE pipe_w)
{
    struct hs_call call = region_call(out, in, offset, len, hs_splice);

    (void)self;
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
 * reads further ahead. A hint: +:error+ when the kernel won't have it, +:noop+ when there is no such
 * call or +len+ is not positive. See posix_fadvise(2).
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
     * Under the GVL: the call notes the advice and returns, while to give the GVL up for it would cost
     * a transfer beside a busy thread a second time slice.
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
 * Whose sendfile this build uses.
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
 * Whether this build has a sendfile to call.
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
 * Whether this build has splice(2) to call.
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
 * Turns the splice route off for the life of this process. For a kernel without the call (ENOSYS)
 * alone: one pair of descriptors that it refuses says nothing of the next.
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
 * The largest +len+ that ::copy_small takes, in bytes.
 */
static VALUE
sendfile_small_file_threshold(VALUE self)
{
    (void)self;
    return INT2FIX(HS_SMALL_FILE_THRESHOLD);
}

/* Native.splice_marked_unsupported? -> true or false */
static VALUE
native_splice_marked_unsupported_p(VALUE self)
{
    (void)self;
    return atomic_load(&splice_marked_unsupported) ? Qtrue : Qfalse;
}

/*
 * Native.transfer(out, in, offset, len, method, head, head_sent, timeout, report, ktls = false)
 *     { |bytes, head_bytes| } -> status
 *
 * The loop of a plain thread: head from head_sent on, then the region by :sendfile or :buffered (or
 * by :head the head alone, held back to join the len bytes that follow), and the waiting between, all
 * under one release of the GVL. timeout: seconds without a byte, nil for none, false to make one
 * attempt and not wait at all. With report it returns :partial after each attempt that moved
 * something. With ktls it looks for a hang-up before each attempt. in is nil where nothing is read. However it is left, by an exception or a killed
 * thread too, the block first gets the bytes that went out, unless there were none. Besides the
 * statuses of copy: :timeout.
 */
static VALUE
native_transfer(int argc, VALUE *argv, VALUE self)
{
    struct hs_call call;
    struct hs_transfer *t = &call.transfer;
    VALUE head;

    (void)self;
    rb_check_arity(argc, 9, 10);
    call = hs_call_on(argv[0], NIL_P(argv[1]) ? Qnil : hs_in_source(argv[1]));
    t->wait = argv[7] != Qfalse;
    t->timeout_ns = t->wait ? hs_timeout_ns(argv[7]) : -1;
    t->report = RTEST(argv[8]);
    t->ktls = argc > 9 && RTEST(argv[9]);
    t->method = method_named(argv[4]);
    head = set_head(t, argv[5], NULL, 0);
    t->head_sent = NUM2SIZET(argv[6]);
    if (t->head_sent > t->head_length) {
        rb_raise(rb_eRangeError, "head is shorter than what was sent of it");
    }
    if (!NIL_P(call.in)) t->in_fd = hs_in_descriptor(call.in);
    t->offset = hs_bytes(argv[2], "offset");
    t->length = hs_bytes(argv[3], "len");
    hs_check_region(t->offset, t->length);
    t->out_fd = hs_out_descriptor(argv[0]);
    call.yield_counts = true;
    call.head_before = t->head_sent;

    hs_call_run(&call);
    if (t->status == HS_FAILED && t->err == ESPIPE) t->status = HS_UNSUPPORTED; /* to be streamed */
    raise_if_failed(t);
    RB_GC_GUARD(head);
    return status_symbol(t->status);
}

/* Native.wait(io, writable, timeout) -> true, or false when nothing came within timeout seconds */
static VALUE
native_wait(VALUE self, VALUE io, VALUE writable, VALUE timeout)
{
    (void)self;
    return hs_wait_without_gvl(io, RTEST(writable) ? POLLOUT : POLLIN, timeout) ? Qtrue : Qfalse;
}

/* Native.queued(io) -> bytes that the kernel has taken and not delivered, or -1 */
static VALUE
native_queued(VALUE self, VALUE io)
{
    (void)self;
    return INT2NUM(hs_os_queued(hs_out_descriptor(io)));
}

static VALUE
release_sigpipe(VALUE signals)
{
    hs_signals_release((const struct hs_signals *)signals);
    return Qnil;
}

/*
 * Native.without_sigpipe { } -> what the block returns. For a write that is not ours; the block must
 * not switch to another fiber, since the signal is held for the thread.
 */
static VALUE
native_without_sigpipe(VALUE self)
{
    struct hs_signals signals = {0};

    (void)self;
    hs_signals_hold_pipe(&signals);
    return rb_ensure(rb_yield, Qnil, release_sigpipe, (VALUE)&signals);
}

/* Native.flushed?(out) -> whether Ruby holds nothing back for this IO */
static VALUE
native_flushed_p(VALUE self, VALUE out)
{
    (void)self;
    return hs_flushed(out) ? Qtrue : Qfalse;
}

/* Native.descriptor(out) -> the number that out is written by */
static VALUE
native_descriptor(VALUE self, VALUE out)
{
    (void)self;
    return INT2NUM(hs_out_descriptor(out));
}

/* Native.regular_size(file) -> bytes, or nil when it is no regular file */
static VALUE
native_regular_size(VALUE self, VALUE file)
{
    struct stat st;

    (void)self;
    if (fstat(hs_in_descriptor(hs_in_source(file)), &st) < 0) rb_sys_fail("fstat");
    return S_ISREG(st.st_mode) ? OFFT2NUM(st.st_size) : Qnil;
}

/* Native.widen_pipe(pipe_w) -> nil: room for more bytes between fill and drain; only a hint */
static VALUE
native_widen_pipe(VALUE self, VALUE pipe_w)
{
    (void)self;
    hs_pipe_widen(hs_pipe_descriptor(pipe_w, "pipe_w"));
    return Qnil;
}

/* What a thread sends in small bodies before a fiber lets others run. */
static const long BYTES_PER_TURN = 1024 * 1024;
static _Thread_local long bytes_since_turn;

/*
 * Native.copy_at_once(out, in, offset, len, head) -> true, :turn, bytes, or nil
 *
 * What copy_to_socket does for a small body between two IOs, in as few steps as can be: call copy_small
 * by its public name, which checks the arguments. true: all is out; :turn: the same, and a fiber has to
 * let others run; bytes: as many of head and body are out; nil: this is not the case it is for, and
 * nothing was sent.
 */
static VALUE
native_copy_at_once(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len, VALUE head)
{
    VALUE arguments[] = {out, in, offset, len, head};
    long whole;
    VALUE moved;

    (void)self;
    if (!FIXNUM_P(len) || FIX2LONG(len) > HS_SMALL_FILE_THRESHOLD || !RB_TYPE_P(in, T_FILE) ||
        !hs_flushed(out)) {
        return Qnil;
    }
    whole = FIX2LONG(len) + (RB_TYPE_P(head, T_STRING) ? RSTRING_LEN(head) : 0);
    moved = rb_funcallv(mSendfile, id_copy_small, NIL_P(head) ? 4 : 5, arguments);
    if (moved != LONG2FIX(whole)) return moved;

    bytes_since_turn += whole;
    if (bytes_since_turn < BYTES_PER_TURN) return Qtrue;
    bytes_since_turn = 0;
    return ID2SYM(id_turn);
}

/* Native.push(io) -> nil: sends what Nagle's algorithm holds back */
static VALUE
native_push(VALUE self, VALUE io)
{
    (void)self;
    hs_os_push(hs_out_descriptor(io), false);
    return Qnil;
}

/* Native.ktls_compiled? -> whether this build knows of kernel TLS */
static VALUE
native_ktls_compiled_p(VALUE self)
{
    (void)self;
    return hs_ktls_compiled() ? Qtrue : Qfalse;
}

/* Native.ktls?(io) -> whether the kernel encrypts what is sent there */
static VALUE
native_ktls_p(VALUE self, VALUE io)
{
    (void)self;
    return hs_ktls_sends(hs_out_descriptor(io)) ? Qtrue : Qfalse;
}

/* Native.ktls_writable?(io) -> whether it polls writable; raises Errno::* when the connection has ended */
static VALUE
native_ktls_writable_p(VALUE self, VALUE io)
{
    bool writable = false;
    int gone = hs_ktls_gone(hs_out_descriptor(io), &writable);

    (void)self;
    if (gone != 0) rb_syserr_fail(gone, NULL);
    return writable ? Qtrue : Qfalse;
}

/* Native.ktls_close_record(io) -> nil: lets go of what was sent with MSG_MORE */
static VALUE
native_ktls_close_record(VALUE self, VALUE io)
{
    (void)self;
    hs_ktls_close_record(hs_out_descriptor(io));
    return Qnil;
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
    status_ids[HS_INTERRUPTED] = rb_intern("interrupted");
    id_copy_small = rb_intern("copy_small");
    id_turn = rb_intern("turn");
    id_sendfile = rb_intern("sendfile");
    id_buffered = rb_intern("buffered");
    id_head = rb_intern("head");
    id_ok = rb_intern("ok");
    id_error = rb_intern("error");
    id_noop = rb_intern("noop");
}

RUBY_FUNC_EXPORTED void
Init_hyperion_sendfile(void)
{
    VALUE mHyperion, mHttp, mNative;

    rb_ext_ractor_safe(true);
    hs_signals_init();
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

    mNative = rb_define_module_under(mSendfile, "Native");
    rb_define_singleton_method(mNative, "transfer", native_transfer, -1);
    rb_define_singleton_method(mNative, "copy_at_once", native_copy_at_once, 5);
    rb_define_singleton_method(mNative, "wait", native_wait, 3);
    rb_define_singleton_method(mNative, "regular_size", native_regular_size, 1);
    rb_define_singleton_method(mNative, "push", native_push, 1);
    rb_define_singleton_method(mNative, "queued", native_queued, 1);
    rb_define_singleton_method(mNative, "ktls_compiled?", native_ktls_compiled_p, 0);
    rb_define_singleton_method(mNative, "ktls?", native_ktls_p, 1);
    rb_define_singleton_method(mNative, "ktls_writable?", native_ktls_writable_p, 1);
    rb_define_singleton_method(mNative, "ktls_close_record", native_ktls_close_record, 1);
    rb_define_singleton_method(mNative, "without_sigpipe", native_without_sigpipe, 0);
    rb_define_singleton_method(mNative, "flushed?", native_flushed_p, 1);
    rb_define_singleton_method(mNative, "descriptor", native_descriptor, 1);
    rb_define_singleton_method(mNative, "widen_pipe", native_widen_pipe, 1);
    rb_define_singleton_method(mNative, "splice_marked_unsupported?",
                               native_splice_marked_unsupported_p, 0);
    rb_funcall(mSendfile, rb_intern("private_constant"), 1, ID2SYM(rb_intern("Native")));
}
