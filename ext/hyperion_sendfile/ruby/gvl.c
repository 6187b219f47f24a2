/*
 * Runs a transfer on behalf of Ruby: descriptors looked up and owned, the GVL given up and taken
 * back, interrupts answered. What comes after is in transfer.c, which knows no Ruby.
 */
#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "glue.h"

#include <errno.h>
#include <unistd.h>

/* How soon a closed destination is noticed where IO#close can't wake us. */
static const int64_t SLICE_NS = 100 * 1000 * 1000;

/*
 * Without the GVL: it reads a flag of this very thread. The wake-up signal is no measure of it: that which
 * Ruby's timer sends is the whole process', and the kernel gives it to a thread that does not hold it back.
 */
static bool
wanted(uintptr_t thread)
{
    return rb_thread_interrupted((VALUE)thread);
}

struct hs_call
hs_call_on(VALUE out, VALUE in)
{
    return (struct hs_call){
        .out = out,
        .in = in,
        .owned_out_fd = -1,
        .owned_in_fd = -1,
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

static void
run(void *data)
{
    hs_transfer_run(data);
}

static void *
run_attempt(void *data)
{
    hs_transfer_run(data);
    return NULL;
}

/*
 * Without the GVL another thread may close a descriptor, as a signal handler may on the way there, and by
 * the time of the system call its number may be somebody else's. So what Ruby does not guard is used by a
 * duplicate, which is ours: the source, and the destination, where the region is no guard.
 */
static bool
own(int *fd, int *owned)
{
    if (*owned < 0) *owned = hs_own_duplicate(*fd);
    if (*owned < 0) return false;
    *fd = *owned;
    return true;
}

static bool
own_descriptors(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;
    bool all = true;

    if (!NIL_P(call->in)) all = own(&t->in_fd, &call->owned_in_fd);
    if (!hs_region_guards_fd) {
        t->slice_ns = SLICE_NS;
        all = own(&t->out_fd, &call->owned_out_fd) && all;
    }
    return all;
}

/* After an interrupt, which may have run Ruby code: what it closed raises here. */
static void
look_up_again(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;
    int out_fd;

    if (!NIL_P(call->in) && call->owned_in_fd < 0) t->in_fd = hs_in_descriptor(call->in);
    out_fd = hs_out_descriptor(call->out);
    if (call->owned_out_fd < 0) t->out_fd = out_fd;
}

static void
run_guarded(struct hs_call *call)
{
    struct hs_transfer *t = &call->transfer;

    t->status = HS_INTERRUPTED;
    hs_region(run, t, t->out_fd);
    if (t->status == HS_INTERRUPTED) look_up_again(call);
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
    if (t->status == HS_INTERRUPTED) {
        rb_thread_check_ints();
        look_up_again(call);
    }
}

static VALUE
run_to_an_end(VALUE argument)
{
    struct hs_call *call = (struct hs_call *)argument;

    do {
        if (own_descriptors(call)) {
            run_guarded(call);
        } else {
            run_under_gvl(call);
        }
    } while (call->transfer.status == HS_INTERRUPTED);
    return Qnil;
}

static VALUE
finish(VALUE argument)
{
    struct hs_call *call = (struct hs_call *)argument;
    const struct hs_transfer *t = &call->transfer;

    if (call->owned_in_fd >= 0) hs_own_close(call->owned_in_fd);
    if (call->owned_out_fd >= 0) hs_own_close(call->owned_out_fd);
    call->owned_in_fd = call->owned_out_fd = -1;
    if (call->yields > 0 && (t->sent > 0 || t->head_sent > call->head_before)) {
        rb_yield_values(call->yields, OFFT2NUM(t->sent),
                        SIZET2NUM(t->head_sent - call->head_before));
    }
    return Qnil;
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
 * An attempt with no other thread alive has nothing to guard, to own, or to be woken from. It lets no interrupt
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
    if (t->status == HS_INTERRUPTED && !t->wait && rb_thread_alone()) run_attempt_alone(t);
    if (t->status == HS_INTERRUPTED) {
        rb_ensure(run_to_an_end, (VALUE)call, finish, (VALUE)call);
    } else if (call->yields > 0) {
        finish((VALUE)call);
    }
    RB_GC_GUARD(call->out);
    RB_GC_GUARD(call->in);
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
        if (!hs_region_guards_fd && (left < 0 || left > SLICE_NS)) left = SLICE_NS;
        wait.timeout_ns = left;
        wait.fd = hs_out_descriptor(io);
        hs_region(wait_for_event, &wait, wait.fd);
        if (wait.ready > 0) return true;
        if (wait.ready < 0 && wait.err != EINTR) rb_syserr_fail(wait.err, NULL);
        if (deadline != INT64_MAX && hs_now_ns() >= deadline) return false;
    }
}

/* A stretch of a file that is to be in the page cache. */
struct read_in {
    int fd; /* a duplicate, since the GVL is given up */
    off_t offset;
    off_t length;
    bool begun;
    bool there;
};

/* What is read is dropped: only that it is known to be in the page cache afterwards counts. */
static void
read_in(void *data)
{
    struct read_in *job = data;
    char buffer[32 * 1024];
    off_t done = 0;

    job->begun = true;
    if (!hs_tells_resident(job->fd, job->offset, true)) return;
    while (done < job->length) {
        off_t left = job->length - done;
        ssize_t got =
            pread(job->fd, buffer, left < (off_t)sizeof(buffer) ? (size_t)left : sizeof(buffer),
                  job->offset + done);

        if (got <= 0) break; /* who reads it to send it will say why */
        done += got;
    }
    job->there = hs_resident(job->fd, job->offset, job->length);
}

/* The region may be left before it runs, if only for another thread's turn. */
static VALUE
read_in_without_gvl(VALUE argument)
{
    struct read_in *job = (struct read_in *)argument;

    while (!job->begun)
        hs_region(read_in, job, job->fd);
    return Qnil;
}

static VALUE
close_read_in(VALUE argument)
{
    hs_own_close(((const struct read_in *)argument)->fd);
    return Qnil;
}

/* Whether it is known to be in the page cache now. */
bool
hs_read_in(VALUE in, off_t offset, off_t length)
{
    VALUE source = hs_in_source(in);
    struct read_in job = {.offset = offset, .length = length};

    job.fd = hs_own_duplicate(hs_in_descriptor(source));
    RB_GC_GUARD(source);
    if (job.fd < 0) return false;
    rb_ensure(read_in_without_gvl, (VALUE)&job, close_read_in, (VALUE)&job);
    return job.there;
}
