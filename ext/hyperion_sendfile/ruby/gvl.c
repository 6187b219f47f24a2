/*
 * Runs a transfer on behalf of Ruby: descriptors looked up and owned, the GVL given up and taken
 * back, interrupts answered. What comes after is in transfer.c, which knows no Ruby.
 */
#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* How soon a closed destination is noticed where IO#close can't wake us. */
static const int64_t SLICE_NS = 100 * 1000 * 1000;

static VALUE ractor;
static ID id_count;

/*
 * Without the GVL: it reads a flag of this very thread. The wake-up signal is no measure of it: that which
 * Ruby's timer sends is the whole process', and the kernel gives it to a thread that does not hold it back.
 */
static bool
wanted(uintptr_t thread)
{
    return rb_thread_interrupted((VALUE)thread);
}

/* Before any descriptor is looked up, since it asks Ruby code, which may let interrupts in. */
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

/* INTR_FAIL: no interrupt is raised in between; it is looked for here, with the counts safe. */
void
hs_without_gvl(void (*func)(void *), void *data)
{
    struct without_gvl work = {func, data};

    rb_nogvl(call_without_gvl, &work, RUBY_UBF_IO, NULL, RB_NOGVL_INTR_FAIL);
    rb_thread_check_ints();
}

/* What can be closed without the GVL is, before it is taken back: beside a busy thread that is waited for. */
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
 * All that Ruby does not guard: the destination, too, where the region is no guard. Of a number whose IO is another
 * Ractor's it is none: IO#close there would wait for us, and give up with an error.
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
    if (is_io) t->slice_ns = SLICE_NS; /* a number tells of no close */
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
 * Out of descriptors, and so without duplicates: one attempt, which does not wait, and keeps the GVL
 * so that nobody can close anything meanwhile.
 */
static void
run_under_gvl(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    t->wait = false;
    hs_transfer_run(t);
    if (t->status == HS_INTERRUPTED) rb_thread_check_ints();
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

/* The others, too, when one of them raises. */
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

/* What moved is told of whatever interrupts the release. */
static VALUE
finish(VALUE argument)
{
    return rb_ensure(release, argument, report, argument);
}

/* Where nothing can make it wait, nobody is kept waiting. */
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
 * An attempt with no other thread alive has nothing to guard, to hold, or to be woken from. It lets no interrupt
 * in, so that what it moved is told of before a signal's handler can raise.
 */
static void
run_attempt_alone(struct hs_transfer *t)
{
    rb_nogvl(run_attempt, t, NULL, NULL, RB_NOGVL_INTR_FAIL);
}

/*
 * Runs once for a call: the descriptors in call->transfer are of no use afterwards. Leaves its result
 * there, too. Raises only what interrupts this thread.
 */
void
hs_call_run(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    t->status = HS_INTERRUPTED; /* until it has run */
    if (call->keep_gvl) run_keeping_gvl(t);
    if (t->status == HS_INTERRUPTED && !t->wait && call->one_ractor && rb_thread_alone()) {
        run_attempt_alone(t);
    }
    if (t->status == HS_INTERRUPTED) {
        rb_ensure(run_to_an_end, (VALUE)call, finish, (VALUE)call);
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

/* Whether one of the events came within the timeout (nil: there is none). */
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
 * The mask is that of a native thread, and with M:N threads Ruby goes on by another one after it gave the GVL up. So the
 * thread gets one of its own, for good; only programs that trap SIGPIPE come here. Ruby 3.3 has M:N threads and no way
 * to ask for that: where they are in use, the program's trap hears of a peer that is gone, as of Ruby's own writes.
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

/* Of a read that is interrupted every time. */
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
    read->err = EINTR; /* for when it is not run at all */
    rb_ensure(read_without_gvl, (VALUE)&reading, release_source, (VALUE)&reading);
    RB_GC_GUARD(source);
}

/* A stretch of a file that is to be in the page cache. */
struct read_in {
    struct hs_read read; /* the first, as which it is run */
    off_t offset;
    off_t length;
    off_t done;
    uintptr_t thread;
    bool there;
};

/* What is read is dropped: only that it is known to be in the page cache afterwards counts. */
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
        if (read->got <= 0) break; /* who reads it to send it will say why */
        job->done += read->got;
        if (wanted(job->thread)) {
            read->err = EINTR;
            return;
        }
    }
    job->there = hs_resident(read->fd, job->offset, job->length);
}

/* Whether it is known to be in the page cache now. */
bool
hs_read_in(VALUE in, off_t offset, off_t length)
{
    struct read_in job = {.read = {.run = read_in},
                          .offset = offset,
                          .length = length,
                          .thread = (uintptr_t)rb_thread_current()};
    VALUE source = hs_in_source(in);

    (void)hs_in_descriptor(source); /* or what is wrong with it */
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
