/* The methods of the private module Native, on which the façade in lib/ builds. */
#include <ruby.h>
#include <ruby/fiber/scheduler.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "frames.h"
#include "glue.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static VALUE sendfile;
static ID id_copy_small, id_turn, id_io, id_sendfile, id_buffered, id_head, id_timeout, id_new;
static ID id_splice_runtime_supported_p, id_fadvise_sequential;
static ID id_FADVISE_THRESHOLD, id_TimeoutError;

static hs_method *
method_named(VALUE name, const struct hs_frames *frames)
{
    ID id = SYM2ID(name);

    if (frames && frames->memory) return hs_frames_in_place;
    if (id == id_sendfile) return hs_kernel_method(frames ? hs_frames_sendfile : hs_os_sendfile);
    if (id == id_buffered) return frames ? hs_frames_buffered : hs_buffered;
    if (id == id_head) return hs_head_alone;
    rb_raise(rb_eArgError, "no such method: %" PRIsVALUE, name);
}

/* Native.splice_marked_unsupported? -> true or false */
static VALUE
native_splice_marked_unsupported_p(VALUE self)
{
    (void)self;
    return hs_splice_marked_unsupported() ? Qtrue : Qfalse;
}

/*
 * Look up the destination's descriptor last: the other conversions may call Ruby code, which could
 * close it.
 */
static void
run_region(struct hs_call *call, VALUE offset, VALUE len)
{
    struct hs_transfer *t = &call->transfer;

    if (!NIL_P(call->in)) t->in_fd = hs_in_descriptor(call->in);
    t->offset = hs_bytes(offset, "offset");
    t->length = hs_bytes(len, "len");
    hs_check_region(t->offset, t->length);
    t->out_fd = hs_out_descriptor(call->out);
    call->yields = 2;
    call->head_before = t->head_sent;

    hs_call_run(call);
    /* A source without offsets has to be streamed. */
    if (t->status == HS_FAILED && t->err == ESPIPE) t->status = HS_UNSUPPORTED;
    hs_raise_if_failed(call);
}

/*
 * Native.transfer(out, in, offset, len, method, head, head_sent, timeout, report, ktls = false, frames = nil)
 *     { |bytes, head_bytes| } -> status
 *
 * The loop of a plain thread. Sends head from head_sent on, then the region by :sendfile or
 * :buffered, and waits as needed, all under one release of the GVL. (With :head, it sends only the
 * head, held back to join the len bytes that follow.) timeout: seconds without a byte; nil: none;
 * false: make one attempt and do not wait. With report, it returns :partial after each attempt that
 * sent bytes. With ktls, it checks for a hang-up before each attempt. in is nil if nothing is read.
 * With frames, offset, len and bytes are positions on the wire. The block is called with the bytes
 * sent, if any, before the call is left in any way, even by an exception or a killed thread.
 * Statuses: those of copy, and :timeout.
 */
static VALUE
native_transfer(int argc, VALUE *argv, VALUE self)
{
    struct hs_call call;
    struct hs_transfer *t = &call.transfer;
    VALUE head, frames;

    (void)self;
    rb_check_arity(argc, 9, 11);
    frames = argc > 10 ? argv[10] : Qnil;
    call = hs_call_on(argv[0], NIL_P(argv[1]) ? Qnil : hs_in_source(argv[1]));
    t->wait = argv[7] != Qfalse;
    t->timeout_ns = t->wait ? hs_timeout_ns(argv[7]) : -1;
    t->report = RTEST(argv[8]);
    t->ktls = argc > 9 && RTEST(argv[9]);
    if (!NIL_P(frames)) t->frames = hs_frames_to_send(frames);
    t->method = method_named(argv[4], t->frames);
    head = hs_set_head(t, argv[5], NULL, 0);
    t->head_sent = NUM2SIZET(argv[6]);
    if (t->head_sent > t->head_length) {
        rb_raise(rb_eRangeError, "head is shorter than what was sent of it");
    }
    run_region(&call, argv[2], argv[3]);
    RB_GC_GUARD(head);
    RB_GC_GUARD(frames);
    return hs_status_symbol(t->status);
}

/* Native.wait(io, writable, timeout) -> true, or false after timeout seconds without an event */
static VALUE
native_wait(VALUE self, VALUE io, VALUE writable, VALUE timeout)
{
    (void)self;
    return hs_wait_without_gvl(io, RTEST(writable) ? POLLOUT : POLLIN, timeout) ? Qtrue : Qfalse;
}

/* Native.queued(io) -> bytes that the kernel has accepted but not delivered; -1: unknown */
static VALUE
native_queued(VALUE self, VALUE io)
{
    (void)self;
    return INT2NUM(hs_queued(hs_out_descriptor(io)));
}

static VALUE
release_sigpipe(VALUE signals)
{
    hs_sigpipe_release((const struct hs_sigpipe *)signals);
    return Qnil;
}

/*
 * Native.without_sigpipe { } -> the result of the block. For writes by other code. The block must
 * not switch to another fiber, because the signal is blocked for the thread.
 */
static VALUE
native_without_sigpipe(VALUE self)
{
    struct hs_sigpipe signals = {0};

    (void)self;
    hs_hold_sigpipe(&signals);
    return rb_ensure(rb_yield, Qnil, release_sigpipe, (VALUE)&signals);
}

/* Native.flushed?(out) -> whether Ruby has nothing buffered for this IO */
static VALUE
native_flushed_p(VALUE self, VALUE out)
{
    (void)self;
    return hs_flushed(out) ? Qtrue : Qfalse;
}

/* Native.descriptor(out) -> the number of the descriptor that out writes to */
static VALUE
native_descriptor(VALUE self, VALUE out)
{
    (void)self;
    return INT2NUM(hs_out_descriptor(out));
}

struct facts {
    int fd;
    struct stat st;
    int err;
};

static void *
ask_for_facts(void *data)
{
    struct facts *facts = data;

    facts->err = fstat(facts->fd, &facts->st) < 0 ? errno : 0;
    return NULL;
}

/*
 * Native.regular_size(file) -> bytes; nil: not a regular file. Without the GVL, because a file
 * server may be asked.
 */
static VALUE
native_regular_size(VALUE self, VALUE file)
{
    VALUE source = hs_in_source(file);
    struct facts facts = {.fd = hs_in_descriptor(source), .err = EINTR};

    (void)self;
    if (hs_tells_resident(facts.fd, 0, false)) ask_for_facts(&facts);
    while (facts.err == EINTR) {
        rb_nogvl(ask_for_facts, &facts, RUBY_UBF_IO, NULL, RB_NOGVL_INTR_FAIL);
        rb_thread_check_ints();
        facts.fd = hs_in_descriptor(source); /* raises if it was closed meanwhile */
    }
    if (facts.err != 0) rb_syserr_fail(facts.err, "fstat");
    return S_ISREG(facts.st.st_mode) ? OFFT2NUM(facts.st.st_size) : Qnil;
}

/*
 * A pipe for one transfer. If the transfer never ends, for example in an abandoned fiber, the
 * garbage collector closes the pipe.
 */
struct pipe {
    struct hs_owned ends[2];
};

static void
pipe_close(struct pipe *pipe)
{
    hs_own_close(&pipe->ends[0]);
    hs_own_close(&pipe->ends[1]);
}

static void
pipe_free(void *pipe)
{
    pipe_close(pipe);
    ruby_xfree(pipe);
}

static const rb_data_type_t PIPE = {
    .wrap_struct_name = "Hyperion::Http::Sendfile pipe",
    .function = {.dfree = pipe_free},
    .flags = RUBY_TYPED_FREE_IMMEDIATELY,
};

static VALUE
pipe_yield(VALUE argument)
{
    const struct pipe *pipe = (const struct pipe *)argument;

    return rb_yield_values(2, INT2FIX(pipe->ends[0].fd), INT2FIX(pipe->ends[1].fd));
}

static VALUE
pipe_ensure(VALUE argument)
{
    pipe_close((struct pipe *)argument);
    return Qnil;
}

/*
 * Native.with_pipe { |pipe_r, pipe_w| } -> the result of the block; nil: no pipe could be opened
 *
 * Not by IO.pipe: an interrupt in it, or in IO#close, leaves an IO behind, which may close its
 * descriptor again when it is collected, when the number already belongs to another file.
 */
static VALUE
native_with_pipe(VALUE self)
{
    struct pipe *pipe;
    VALUE owner = TypedData_Make_Struct(0, struct pipe, &PIPE, pipe);
    VALUE result;

    (void)self;
    pipe->ends[0] = pipe->ends[1] = HS_OWNS_NOTHING;
    if (!hs_pipe_open(pipe->ends, (uintptr_t)rb_thread_current())) {
        pipe_close(pipe);
        return Qnil;
    }
    hs_pipe_widen(pipe->ends[1].fd);
    result = rb_ensure(pipe_yield, (VALUE)pipe, pipe_ensure, (VALUE)pipe);
    RB_GC_GUARD(owner);
    return result;
}

/* Bytes that a thread sends in small regions before a fiber lets others run. */
static const long BYTES_PER_TURN = 1024 * 1024;
static _Thread_local long bytes_since_turn;

static bool
turn_due(long bytes)
{
    bytes_since_turn += bytes;
    if (bytes_since_turn < BYTES_PER_TURN) return false;
    bytes_since_turn = 0;
    return true;
}

/*
 * Native.turn_due?(bytes) -> whether a fiber has to let others run, after sending these bytes
 * without a wait
 */
static VALUE
native_turn_due_p(VALUE self, VALUE bytes)
{
    (void)self;
    return turn_due(NUM2LONG(bytes)) ? Qtrue : Qfalse;
}

/* Whether a timeout that will not be used needs no further check. */
static bool
plain_timeout(VALUE timeout)
{
    return timeout == ID2SYM(id_io) || NIL_P(timeout) ||
           (FIXNUM_P(timeout) && FIX2LONG(timeout) >= 0) ||
           (RB_FLOAT_TYPE_P(timeout) && RFLOAT_VALUE(timeout) >= 0);
}

/*
 * Whether the call is from one IO to another for which Ruby has nothing buffered. The primitives
 * check the rest.
 */
static bool
plain(VALUE out, VALUE in, VALUE len, VALUE timeout)
{
    return FIXNUM_P(len) && RB_TYPE_P(in, T_FILE) && plain_timeout(timeout) && hs_flushed(out);
}

/* Whether a fiber would make its event loop wait for a disk. */
static bool
would_stall_loop(VALUE in, VALUE offset, VALUE len)
{
    off_t start, length;
    int fd;

    if (NIL_P(rb_fiber_scheduler_current())) return false;
    fd = hs_in_descriptor(in);
    start = hs_bytes(offset, "offset");
    length = hs_bytes(len, "len");
    hs_check_region(start, length);
    return !hs_resident(fd, start, length);
}

/*
 * Sends a region of at most HS_SMALL_FILE_THRESHOLD bytes by copy_small. Other threads may change a
 * String before copy_small reads it, so the head that it gets is frozen.
 */
static VALUE
copy_small_at_once(VALUE out, VALUE in, VALUE offset, VALUE len, VALUE head)
{
    VALUE arguments[] = {out, in, offset, len, head};
    long whole = FIX2LONG(len);
    VALUE moved;

    if (would_stall_loop(in, offset, len)) return Qnil;
    if (RB_TYPE_P(head, T_STRING)) {
        head = arguments[4] = rb_str_new_frozen(head);
        whole += RSTRING_LEN(head);
    }
    moved = rb_funcall_passing_block(sendfile, id_copy_small, NIL_P(head) ? 4 : 5, arguments);
    if (moved != LONG2FIX(whole)) return NIL_P(head) ? moved : rb_assoc_new(moved, head);
    hs_count(HS_SMALL_RESPONSES, 1);
    hs_count(HS_SMALL_BYTES, (uint64_t)FIX2LONG(len));

    return turn_due(whole) ? ID2SYM(id_turn) : Qtrue;
}

/* Whether copy_large_at_once may wait, and no option needs another way. */
static bool
in_one_go(VALUE offset, VALUE head, VALUE blocking)
{
    return hs_kernel_copies() && (RTEST(blocking) || NIL_P(rb_fiber_scheduler_current())) &&
           FIXNUM_P(offset) && FIX2LONG(offset) >= 0 &&
           (NIL_P(head) || RB_TYPE_P(head, T_STRING)) &&
           !RTEST(rb_funcallv(sendfile, id_splice_runtime_supported_p, 0, NULL));
}

/* Sends a larger region by sendfile, including the waits. */
static VALUE
copy_large_at_once(VALUE out, VALUE in, VALUE offset, VALUE len, VALUE head, VALUE timeout)
{
    struct hs_call call;
    struct hs_transfer *t = &call.transfer;

    if (timeout == ID2SYM(id_io)) {
        timeout = rb_check_funcall(out, id_timeout, 0, NULL); /* Ruby 3.2 */
        if (timeout == Qundef) timeout = Qnil;
    }
    if (FIX2LONG(len) >= FIX2LONG(rb_const_get(sendfile, id_FADVISE_THRESHOLD))) {
        rb_funcall(sendfile, id_fadvise_sequential, 3, in, len, offset);
    }
    call = hs_call_on(out, in);
    t->wait = true;
    t->timeout_ns = hs_timeout_ns(timeout);
    t->method = hs_os_sendfile;
    head = hs_set_head(t, head, NULL, 0);
    run_region(&call, offset, len);
    RB_GC_GUARD(head);

    if (t->status == HS_TIMEOUT) {
        rb_exc_raise(rb_funcall(rb_const_get(sendfile, id_TimeoutError), id_new, 3,
                                OFFT2NUM(t->sent), len, timeout));
    }
    if (t->status != HS_DONE) return rb_assoc_new(OFFT2NUM((off_t)t->head_sent + t->sent), head);
    hs_count(HS_SENDFILE_RESPONSES, 1);
    hs_count(HS_SENDFILE_BYTES, (uint64_t)t->sent);
    return Qtrue;
}

/*
 * Native.copy_at_once(out, in, offset, len, head, timeout, blocking) { |bytes, head_bytes| }
 *     -> true, :turn, bytes, [bytes, head], or nil
 *
 * copy_to_socket between two IOs, in as few steps as possible, because Ruby code that has left the
 * processor's cache takes longer than everything else. A small body is sent by copy_small; a larger
 * one by sendfile to its end, if the caller is not a fiber or wants to block. Primitives that the
 * façade calls by their public names are called by these names here as well. true: all was sent;
 * :turn: all was sent, and a fiber has to let others run; bytes: that many bytes of head and body
 * were sent; [bytes, head]: the same, with a copy of the head, because another thread may have
 * changed the original; nil: another case, and nothing was sent. The block is called with the bytes
 * sent, even if a timeout, an error or another thread ends the call.
 */
static VALUE
native_copy_at_once(VALUE self, VALUE out, VALUE in, VALUE offset, VALUE len, VALUE head,
                    VALUE timeout, VALUE blocking)
{
    (void)self;
    if (!plain(out, in, len, timeout)) return Qnil;
    if (FIX2LONG(len) <= HS_SMALL_FILE_THRESHOLD) {
        return copy_small_at_once(out, in, offset, len, head);
    }
    if (!in_one_go(offset, head, blocking)) return Qnil;
    return copy_large_at_once(out, in, offset, len, head, timeout);
}

/*
 * Native.frames_at_once(frames, out, in, head, timeout) { |bytes, head_bytes| } -> true, [bytes, head], or nil
 *
 * copy_data_frames to an IO, for a few frames of a file that is in the page cache: one attempt,
 * like transfer. true: all was sent; [bytes, head]: that many bytes of head and wire were sent,
 * frames has the rest, and head is a copy of the original one; nil: another case, and nothing was
 * sent. The block is called with the bytes sent of both, even if a signal handler or another thread
 * interrupts this one.
 */
static VALUE
native_frames_at_once(VALUE self, VALUE frames, VALUE out, VALUE in, VALUE head, VALUE timeout)
{
    struct hs_call call;
    struct hs_transfer *t = &call.transfer;
    struct hs_frames *f = hs_frames_to_send(frames);

    (void)self;
    if (!plain(out, in, LONG2FIX(0), timeout) || !(NIL_P(head) || RB_TYPE_P(head, T_STRING)) ||
        would_stall_loop(in, OFFT2NUM(f->offset), OFFT2NUM(f->length))) {
        return Qnil;
    }
    call = hs_call_on(out, in);
    t->frames = f;
    t->method = hs_frames_buffered;
    head = hs_set_head(t, head, NULL, 0);
    t->length = hs_frames_wire_length(f);
    t->in_fd = hs_in_descriptor(in);
    t->out_fd = hs_out_descriptor(out);
    call.yields = 2;

    hs_call_run(&call);
    hs_raise_if_failed(&call);
    RB_GC_GUARD(head);
    RB_GC_GUARD(frames);
    return t->status == HS_DONE ? Qtrue
                                : rb_assoc_new(OFFT2NUM((off_t)t->head_sent + t->sent), head);
}

/*
 * Native.push(io, more) -> nil: flushes bytes held back by Nagle's algorithm, and, with more, by
 * MSG_MORE
 */
static VALUE
native_push(VALUE self, VALUE io, VALUE more)
{
    (void)self;
    hs_push(hs_out_descriptor(io), RTEST(more));
    return Qnil;
}

static VALUE
put_nagle_back(VALUE io)
{
    if (!hs_closed(io)) hs_nagle_on(rb_io_descriptor(io));
    return Qnil;
}

/*
 * Native.without_nagle(io) { } -> the result of the block. Nagle's algorithm is off during the
 * block, and bytes queued by its end are not held back.
 */
static VALUE
native_without_nagle(VALUE self, VALUE io)
{
    (void)self;
    if (!hs_nagle_off(hs_out_descriptor(io))) return rb_yield(Qnil);
    return rb_ensure(rb_yield, Qnil, put_nagle_back, io);
}

/*
 * Native.send_records(ssl, io, in, position, len, head, head_sent, buffer, frames, report)
 *     { |bytes, in_doubt| } -> status
 *
 * One step of userspace TLS. Sends the buffer, then head from head_sent on, then the file from
 * position on, len bytes or to its end (nil), as records through ssl, which writes to io. It may
 * stop anywhere. The buffer then holds the bytes that were read but not sent; pass it to the next
 * call, with the position and head_sent of its first byte. The block is called with the bytes of
 * head and region that were sent, and with whether OpenSSL may have begun to send more. If frames
 * is not nil, position, len and bytes are positions on the wire, and with report it stops at frame
 * boundaries. Statuses: those of copy, and :want_read.
 */
static VALUE
native_send_records(VALUE self, VALUE ssl, VALUE io, VALUE in, VALUE position, VALUE len,
                    VALUE head, VALUE head_sent, VALUE buffer, VALUE frames, VALUE report)
{
    off_t start = hs_bytes(position, "position");
    off_t end = NIL_P(len) ? INT64_MAX : start + hs_bytes(len, "len");
    size_t sent = NUM2SIZET(head_sent);
    enum hs_status status;

    (void)self;
    if (NIL_P(head) ? sent > 0 : sent > (size_t)RSTRING_LEN(head)) {
        rb_raise(rb_eRangeError, "head is shorter than what was sent of it");
    }
    status = hs_send_records(ssl, io, in, start, end, head, sent, buffer,
                             NIL_P(frames) ? NULL : hs_frames_of(frames), RTEST(report));
    RB_GC_GUARD(frames);
    return hs_status_symbol(status);
}

/* Native.ktls_compiled? -> whether this build supports kernel TLS */
static VALUE
native_ktls_compiled_p(VALUE self)
{
    (void)self;
    return hs_ktls_compiled() ? Qtrue : Qfalse;
}

/* Native.ktls?(io) -> whether the kernel encrypts the bytes sent on io */
static VALUE
native_ktls_p(VALUE self, VALUE io)
{
    (void)self;
    return hs_ktls_sends(hs_out_descriptor(io)) ? Qtrue : Qfalse;
}

/*
 * Native.ktls_writable?(io) -> whether io polls writable; raises Errno::* if the connection has
 * ended
 */
static VALUE
native_ktls_writable_p(VALUE self, VALUE io)
{
    bool writable = false;
    int gone = hs_ktls_gone(hs_out_descriptor(io), &writable);

    (void)self;
    if (gone != 0) rb_syserr_fail(gone, NULL);
    return writable ? Qtrue : Qfalse;
}

/* Native.ktls_close_record(io) -> nil: flushes bytes that were sent with MSG_MORE */
static VALUE
native_ktls_close_record(VALUE self, VALUE io)
{
    (void)self;
    hs_ktls_close_record(hs_out_descriptor(io));
    return Qnil;
}

/*
 * Native.resident?(file, offset, len) -> whether the region is known to be in the page cache; never
 * waits
 */
static VALUE
native_resident_p(VALUE self, VALUE file, VALUE offset, VALUE len)
{
    VALUE source = hs_in_source(file);

    (void)self;
    return hs_resident(hs_in_descriptor(source), hs_bytes(offset, "offset"), hs_bytes(len, "len"))
               ? Qtrue
               : Qfalse;
}

/*
 * Native.tells_resident?(file) -> whether resident? can be true for file, as far as is known
 * without waiting
 */
static VALUE
native_tells_resident_p(VALUE self, VALUE file)
{
    VALUE source = hs_in_source(file);

    (void)self;
    return hs_tells_resident(hs_in_descriptor(source), 0, false) ? Qtrue : Qfalse;
}

/*
 * Native.read_in(file, offset, len) -> whether the region is now known to be in the page cache
 *
 * Reads the region, and waits without the GVL. Does not read if the result could not be known
 * afterwards.
 */
static VALUE
native_read_in(VALUE self, VALUE file, VALUE offset, VALUE len)
{
    (void)self;
    return hs_read_in(file, hs_bytes(offset, "offset"), hs_bytes(len, "len")) ? Qtrue : Qfalse;
}

static unsigned
counter(VALUE number)
{
    unsigned index = NUM2UINT(number);

    if (index >= HS_COUNTERS) rb_raise(rb_eIndexError, "no such counter: %u", index);
    return index;
}

/* Native.count(counter, by) -> nil */
static VALUE
native_count(VALUE self, VALUE number, VALUE by)
{
    (void)self;
    hs_count(counter(number), NUM2ULL(by));
    return Qnil;
}

/* Native.counted(counter) -> Integer */
static VALUE
native_counted(VALUE self, VALUE number)
{
    (void)self;
    return ULL2NUM(hs_counted(counter(number)));
}

void
hs_init_native(VALUE mSendfile)
{
    VALUE mNative = rb_define_module_under(mSendfile, "Native");

    sendfile = mSendfile;
    id_copy_small = rb_intern("copy_small");
    id_turn = rb_intern("turn");
    id_io = rb_intern("io");
    id_sendfile = rb_intern("sendfile");
    id_buffered = rb_intern("buffered");
    id_head = rb_intern("head");
    id_timeout = rb_intern("timeout");
    id_new = rb_intern("new");
    id_splice_runtime_supported_p = rb_intern("splice_runtime_supported?");
    id_fadvise_sequential = rb_intern("fadvise_sequential");
    id_FADVISE_THRESHOLD = rb_intern("FADVISE_THRESHOLD");
    id_TimeoutError = rb_intern("TimeoutError");
    hs_records_init();
    hs_init_frames(mNative);
    hs_init_open(mNative);

    rb_define_singleton_method(mNative, "transfer", native_transfer, -1);
    rb_define_singleton_method(mNative, "copy_at_once", native_copy_at_once, 7);
    rb_define_singleton_method(mNative, "turn_due?", native_turn_due_p, 1);
    rb_define_singleton_method(mNative, "frames_at_once", native_frames_at_once, 5);
    rb_define_singleton_method(mNative, "wait", native_wait, 3);
    rb_define_singleton_method(mNative, "regular_size", native_regular_size, 1);
    rb_define_singleton_method(mNative, "resident?", native_resident_p, 3);
    rb_define_singleton_method(mNative, "tells_resident?", native_tells_resident_p, 1);
    rb_define_singleton_method(mNative, "read_in", native_read_in, 3);
    rb_define_singleton_method(mNative, "count", native_count, 2);
    rb_define_singleton_method(mNative, "counted", native_counted, 1);
    rb_define_singleton_method(mNative, "push", native_push, 2);
    rb_define_singleton_method(mNative, "queued", native_queued, 1);
    rb_define_singleton_method(mNative, "without_nagle", native_without_nagle, 1);
    rb_define_singleton_method(mNative, "send_records", native_send_records, 10);
    rb_define_singleton_method(mNative, "ktls_compiled?", native_ktls_compiled_p, 0);
    rb_define_singleton_method(mNative, "ktls?", native_ktls_p, 1);
    rb_define_singleton_method(mNative, "ktls_writable?", native_ktls_writable_p, 1);
    rb_define_singleton_method(mNative, "ktls_close_record", native_ktls_close_record, 1);
    rb_define_singleton_method(mNative, "without_sigpipe", native_without_sigpipe, 0);
    rb_define_singleton_method(mNative, "flushed?", native_flushed_p, 1);
    rb_define_singleton_method(mNative, "descriptor", native_descriptor, 1);
    rb_define_singleton_method(mNative, "with_pipe", native_with_pipe, 0);
    rb_define_singleton_method(mNative, "splice_marked_unsupported?",
                               native_splice_marked_unsupported_p, 0);
    rb_funcall(mSendfile, rb_intern("private_constant"), 1, ID2SYM(rb_intern("Native")));
}
