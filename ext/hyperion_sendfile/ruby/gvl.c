/*
 * Runs a transfer for Ruby: looks up and holds descriptors, releases and takes back the GVL,
 * handles interrupts. The transfer itself is in transfer.c, which does not use Ruby.
 */
#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* If IO#close cannot wake us, a closed destination is noticed after this time. */
static const int64_t SLICE_NS = 100 * 1000 * 1000;

static VALUE ractor;
static ID id_count;

/*
 * Works without the GVL, because it reads a flag of this thread. A wake-up signal is not enough:
 * the one from Ruby's timer is sent to the whole process, and the kernel delivers it to any thread
 * that does not block it.
 */
static bool
wanted(uintptr_t thread)
{
    return rb_thread_interrupted((VALUE)thread);
}

/*
 * Call this before any descriptor is looked up, because it calls Ruby code, in which interrupts may
 * be raised.
 */
struct hs_call
hs_call_on(VALUE out, VALUE in)
{
    return (struct hs_call){
        .one_ractor = rb_funcallv(ractor, id_count, 0, NULL) == INT2FIX(1),
        .out = out,
        .in = in,
        .pipe_r = Qnil,
        .pipe_w = Qnil,
        .held = {HS_HOLDS_NOTHING, HS_HOLDS_NOTHING, HS_HOLDS_NOTHING, HS_HOLDS_NOTHING},
        .transfer = {.head = "",
                     .in_fd = -1,
                     .pipe_r = -1,
                     .pipe_w = -1,
                     .timeout_ns = -1,
                     .slice_ns = -1,
                     .wanted = wanted,
                     .thread = (uintptr_t)rb_thread_current()},
    };
}

struct without_gvl {
    void (*func)(void *);
    void *data;
};

static void *
call_without_gvl(void *argument)
{
    const struct without_gvl *work = argument;

    work->func(work->data);
    return NULL;
}

/* INTR_FAIL: no interrupt is raised inside; the check follows here, when the counts are safe. */
void
hs_without_gvl(void (*func)(void *), void *data)
{
    struct without_gvl work = {func, data};

    rb_nogvl(call_without_gvl, &work, RUBY_UBF_IO, NULL, RB_NOGVL_INTR_FAIL);
    rb_thread_check_ints();
}

/*
 * Closes descriptors before the GVL is taken back, if possible, because beside a busy thread taking
 * it back takes long.
 */
static void
run(void *data)
{
    struct hs_call *call = data;

    hs_transfer_run(&call->transfer);
    if (call->transfer.status == HS_INTERRUPTED) return;
    for (int i = 0; i < HS_DESCRIPTORS; i++)
        hs_release_early(&call->held[i]);
}

static void *
run_attempt(void *data)
{
    hs_transfer_run(data);
    return NULL;
}

static bool
hold(struct hs_call *call, int which, VALUE io, int *fd)
{
    struct hs_held *held = &call->held[which];

    if (NIL_P(io)) return true;
    if (!hs_hold(held, io)) return false;
    *fd = held->fd;
    return true;
}

/*
 * Holds all descriptors that Ruby does not guard, including the destination if the region does not
 * guard it. It does not guard a number whose IO belongs to another Ractor: IO#close there would
 * wait for us, and fail with an error.
 */
static bool
hold_descriptors(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;
    bool is_io = RB_TYPE_P(call->out, T_FILE);
    bool all = hold(call, HS_IN, call->in, &t->in_fd);

    all = hold(call, HS_PIPE_R, call->pipe_r, &t->pipe_r) && all;
    all = hold(call, HS_PIPE_W, call->pipe_w, &t->pipe_w) && all;
    call->region = hs_region_guards(call->out) && (is_io || call->one_ractor);
    if (call->region) return all;
    if (is_io) t->slice_ns = SLICE_NS; /* for a number, no close can be noticed */
    return hold(call, HS_OUT, is_io ? rb_io_get_write_io(call->out) : call->out, &t->out_fd) && all;
}

/*
 * Holding a descriptor can run Ruby code, and so can an interrupt: if that closed something, this
 * raises. The destination comes last, because the other lookups can give the GVL up.
 */
static void
look_up(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;
    const struct hs_held *held = call->held;
    int out_fd;

    if (!NIL_P(call->in) && held[HS_IN].fd < 0) t->in_fd = hs_in_descriptor(call->in);
    if (!NIL_P(call->pipe_r)) {
        if (held[HS_PIPE_R].fd < 0) t->pipe_r = hs_pipe_descriptor(call->pipe_r, "pipe_r");
        if (held[HS_PIPE_W].fd < 0) t->pipe_w = hs_pipe_descriptor(call->pipe_w, "pipe_w");
    }
    out_fd = hs_out_descriptor(call->out);
    if (held[HS_OUT].fd < 0) t->out_fd = out_fd;
}

static void
run_guarded(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    t->status = HS_INTERRUPTED;
    if (call->region) {
        hs_region(run, call, call->out, t->out_fd);
    } else {
        hs_without_gvl(run, call);
    }
}

/*
 * For a process that has no descriptors left for duplicates: one attempt, which does not wait, and
 * keeps the GVL so that no other thread can close an IO meanwhile.
 */
static void
run_under_gvl(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    t->wait = false;
    hs_transfer_run(t);
    if (t->status == HS_INTERRUPTED) rb_thread_check_ints();
}

struct body {
    VALUE (*func)(VALUE);
    VALUE argument;
};

static VALUE
run_body(VALUE argument)
{
    const struct body *body = (const struct body *)argument;
    int raised = 0;
    VALUE result = rb_protect(body->func, body->argument, &raised);

    if (raised) rb_jump_tag(raised);
    return result;
}

/*
 * As rb_ensure, but what is ensured may yield. rb_ensure runs it in the frame of the method that
 * raised, whose block is another, or none; rb_protect leaves that frame first.
 */
VALUE
hs_ensure(VALUE (*func)(VALUE), VALUE argument, VALUE (*ensured)(VALUE), VALUE for_ensured)
{
    struct body body = {func, argument};

    return rb_ensure(run_body, (VALUE)&body, ensured, for_ensured);
}

static VALUE
run_to_an_end(VALUE argument)
{
    struct hs_call *call = (struct hs_call *)argument;

    do {
        bool held = hold_descriptors(call);

        look_up(call);
        if (held) {
            run_guarded(call);
        } else {
            run_under_gvl(call);
        }
    } while (call->transfer.status == HS_INTERRUPTED);
    return Qnil;
}

static VALUE
report(VALUE argument)
{
    const struct hs_call *call = (const struct hs_call *)argument;
    const struct hs_transfer *t = &call->transfer;

    if (call->yields > 0 && (t->sent > 0 || t->head_sent > call->head_before)) {
        rb_yield_values(call->yields, OFFT2NUM(t->sent),
                        SIZET2NUM(t->head_sent - call->head_before));
    }
    return Qnil;
}

static VALUE
release_one(VALUE held)
{
    hs_release((struct hs_held *)held);
    return Qnil;
}

/* Releases the others even if one of them raises. */
static VALUE
release(VALUE argument)
{
    struct hs_call *call = (struct hs_call *)argument;

    for (int i = 0; i < HS_DESCRIPTORS; i++) {
        struct hs_held *held = &call->held[i];

        if (held->fd < 0) continue;
        rb_ensure(release_one, (VALUE)held, release, argument);
        break;
    }
    return Qnil;
}

/* Yields the counts even if an interrupt ends the release. */
static VALUE
finish(VALUE argument)
{
    return hs_ensure(release, argument, report, argument);
}

/* Keeps the GVL for an attempt that cannot block. */
static void
run_keeping_gvl(struct hs_transfer *t)
{
    hs_method *method = t->method;

    t->method = hs_buffered_resident;
    hs_transfer_run(t);
    t->method = method;
    if (t->status == HS_UNSUPPORTED) t->status = HS_INTERRUPTED;
}

/*
 * If no other thread is alive, an attempt needs no guard and no wake-up. It allows no interrupt, so
 * that its counts are yielded before a signal handler can raise.
 */
static void
run_attempt_alone(struct hs_transfer *t)
{
    rb_nogvl(run_attempt, t, NULL, NULL, RB_NOGVL_INTR_FAIL);
}

/*
 * Runs once per call: the descriptors in call->transfer are invalid afterwards. The result is in
 * call->transfer as well. Raises only interrupts of this thread.
 */
void
hs_call_run(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    t->status = HS_INTERRUPTED; /* kept if it does not run */
    if (call->keep_gvl) run_keeping_gvl(t);
    if (t->status == HS_INTERRUPTED && !t->wait && call->one_ractor && rb_thread_alone()) {
        run_attempt_alone(t);
    }
    if (t->status == HS_INTERRUPTED) {
        hs_ensure(run_to_an_end, (VALUE)call, finish, (VALUE)call);
    } else {
        report((VALUE)call);
    }
    RB_GC_GUARD(call->out);
    RB_GC_GUARD(call->in);
    RB_GC_GUARD(call->pipe_r);
    RB_GC_GUARD(call->pipe_w);
}

void
hs_raise_if_failed(const struct hs_call *call)
{
    if (call->transfer.status == HS_FAILED) rb_syserr_fail(call->transfer.err, NULL);
}

struct wait {
    int fd;
    short events;
    int64_t timeout_ns;
    int ready;
    int err;
};

static void
wait_for_event(void *data)
{
    struct wait *wait = data;

    wait->ready = hs_wait(wait->fd, wait->events, wait->timeout_ns);
    wait->err = errno;
}

/* Whether one of the events came within the timeout (nil: no timeout). */
bool
hs_wait_without_gvl(VALUE io, short events, VALUE timeout)
{
    int64_t timeout_ns = hs_timeout_ns(timeout);
    int64_t deadline = timeout_ns < 0 ? INT64_MAX : hs_now_ns() + timeout_ns;

    for (;;) {
        struct wait wait = {.events = events, .ready = -1, .err = EINTR};
        int64_t left = deadline == INT64_MAX ? -1 : deadline - hs_now_ns();

        if (deadline != INT64_MAX && left < 0) left = 0;
        if (!hs_region_guards(io) && (left < 0 || left > SLICE_NS)) left = SLICE_NS;
        wait.timeout_ns = left;
        wait.fd = hs_out_descriptor(io);
        hs_region(wait_for_event, &wait, io, wait.fd);
        if (wait.ready > 0) return true;
        if (wait.ready < 0 && wait.err != EINTR) rb_syserr_fail(wait.err, NULL);
        if (deadline != INT64_MAX && hs_now_ns() >= deadline) return false;
    }
}

/*
 * The signal mask belongs to the native thread, and with M:N threads Ruby may go on in another one
 * after it released the GVL. Therefore the thread gets a native thread of its own, permanently;
 * this affects only programs that trap SIGPIPE. A native thread that Ruby starts meanwhile inherits
 * the mask: its writes raise EPIPE, and the program's trap is not called. Ruby 3.3 has M:N threads but no call for that: if
 * they are in use, the program's trap is called for a peer that is gone, as for Ruby's own writes.
 */
void
hs_hold_sigpipe(struct hs_sigpipe *sigpipe)
{
    if (!hs_sigpipe_does_harm()) return;
#ifdef HAVE_RB_THREAD_LOCK_NATIVE_THREAD
    rb_thread_lock_native_thread();
#else
    if (getenv("RUBY_MN_THREADS") || rb_funcallv(ractor, id_count, 0, NULL) != INT2FIX(1)) return;
#endif
    hs_sigpipe_hold(sigpipe);
}

/* The most attempts of a read that is always interrupted. */
static const int TRIES = 100;

struct reading {
    struct hs_read *read;
    VALUE source;
    struct hs_held held;
};

static void
read_once(void *data)
{
    struct reading *reading = data;
    struct hs_read *read = reading->read;

    read->run(read);
    if (read->err != EINTR) hs_release_early(&reading->held);
}

static VALUE
read_without_gvl(VALUE argument)
{
    struct reading *reading = (struct reading *)argument;
    struct hs_read *read = reading->read;
    bool held = hs_hold(&reading->held, reading->source);

    read->fd = held ? reading->held.fd : hs_in_descriptor(reading->source);
    for (int tries = 0; tries < TRIES && read->err == EINTR; tries++) {
        if (held) {
            hs_without_gvl(read_once, reading);
        } else {
            read_once(reading);
        }
    }
    return Qnil;
}

static VALUE
release_source(VALUE argument)
{
    hs_release(&((struct reading *)argument)->held);
    return Qnil;
}

void
hs_read_source(struct hs_read *read, VALUE source)
{
    struct reading reading = {.read = read, .source = source, .held = HS_HOLDS_NOTHING};

    read->got = -1;
    read->err = EINTR; /* kept if it does not run */
    rb_ensure(read_without_gvl, (VALUE)&reading, release_source, (VALUE)&reading);
    RB_GC_GUARD(source);
}

/* A stretch of a file to be read into the page cache. */
struct read_in {
    struct hs_read read; /* must be the first member */
    off_t offset;
    off_t length;
    off_t done;
    uintptr_t thread;
    bool there;
};

/*
 * Drops the bytes that it reads; the purpose is that they are then known to be in the page cache.
 */
static void
read_in(struct hs_read *read)
{
    struct read_in *job = (struct read_in *)read;
    char buffer[32 * 1024];

    read->err = 0;
    if (!hs_tells_resident(read->fd, job->offset, true)) return;
    while (job->done < job->length) {
        off_t left = job->length - job->done;

        read->got =
            pread(read->fd, buffer, left < (off_t)sizeof(buffer) ? (size_t)left : sizeof(buffer),
                  job->offset + job->done);
        if (read->got <= 0) break; /* the read that sends it will report the error */
        job->done += read->got;
        if (wanted(job->thread)) {
            read->err = EINTR;
            return;
        }
    }
    job->there = hs_resident(read->fd, job->offset, job->length);
}

/* Returns whether the stretch is now known to be in the page cache. */
bool
hs_read_in(VALUE in, off_t offset, off_t length)
{
    struct read_in job = {.read = {.run = read_in},
                          .offset = offset,
                          .length = length,
                          .thread = (uintptr_t)rb_thread_current()};
    VALUE source = hs_in_source(in);

    (void)hs_in_descriptor(source); /* raises if it is closed */
    hs_read_source(&job.read, source);
    return job.there;
}

void
hs_gvl_init(void)
{
    ractor = rb_const_get(rb_cObject, rb_intern("Ractor"));
    id_count = rb_intern("count");
    hs_held_init();
}
