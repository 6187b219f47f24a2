/*
 * io_uring for zerocopy.rb, by its system calls: SEND_ZC, and SPLICE from a file through a pipe to a socket as two
 * linked requests. One ring, one thread, one request or pair under way at a time, submitted and waited for by one call.
 */
#include <ruby.h> /* first: it asks for the GNU names */

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES   64u
#define PIPE_SIZE (1024u * 1024u)
#define AT_MOST   (1u << 30)

enum { SEND = 1, SPLICE_IN, SPLICE_OUT };

static struct {
    int fd;
    _Atomic unsigned *submit_tail, *complete_head, *complete_tail;
    unsigned submit_mask, complete_mask;
    unsigned *submit_order;
    struct io_uring_sqe *requests;
    struct io_uring_cqe *completions;
} ring;

static struct {
    unsigned sent, completed, copied;
} zerocopy;

static int results[SPLICE_OUT + 1];

static void *
shared(size_t length, off_t which)
{
    void *memory =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, which);
    if (memory == MAP_FAILED) rb_sys_fail("mmap of the ring");
    return memory;
}

static int
set_up(struct io_uring_params *params, unsigned flags)
{
    *params = (struct io_uring_params){.flags = flags};
    return (int)syscall(SYS_io_uring_setup, ENTRIES, params);
}

/* Bench.uring_open; Errno::* where the kernel or a sandbox refuses */
static VALUE
bench_uring_open(VALUE self)
{
    struct io_uring_params params;

    ring.fd = set_up(&params, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (ring.fd < 0 && errno == EINVAL) ring.fd = set_up(&params, 0);
    if (ring.fd < 0) rb_sys_fail("io_uring_setup");

    char *submit =
        shared(params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *complete = shared(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
                            IORING_OFF_CQ_RING);
    ring.requests = shared(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring.submit_tail = (void *)(submit + params.sq_off.tail);
    ring.submit_mask = *(unsigned *)(submit + params.sq_off.ring_mask);
    ring.submit_order = (unsigned *)(submit + params.sq_off.array);
    ring.complete_head = (void *)(complete + params.cq_off.head);
    ring.complete_tail = (void *)(complete + params.cq_off.tail);
    ring.complete_mask = *(unsigned *)(complete + params.cq_off.ring_mask);
    ring.completions = (void *)(complete + params.cq_off.cqes);
    return Qnil;
}

static void
queue(struct io_uring_sqe request)
{
    const unsigned tail = atomic_load_explicit(ring.submit_tail, memory_order_relaxed);
    const unsigned index = tail & ring.submit_mask;

    ring.requests[index] = request;
    ring.submit_order[index] = index;
    atomic_store_explicit(ring.submit_tail, tail + 1, memory_order_release);
}

/* Files what is completed; returns how many results of requests were among it, notifications not counted. */
static unsigned
collect(void)
{
    unsigned head = atomic_load_explicit(ring.complete_head, memory_order_relaxed);
    unsigned found = 0;

    for (; head != atomic_load_explicit(ring.complete_tail, memory_order_acquire); head++) {
        const struct io_uring_cqe *entry = &ring.completions[head & ring.complete_mask];

        if (entry->flags & IORING_CQE_F_NOTIF) {
            zerocopy.completed++;
            if ((unsigned)entry->res & IORING_NOTIF_USAGE_ZC_COPIED) zerocopy.copied++;
            continue;
        }
        if (entry->flags & IORING_CQE_F_MORE) zerocopy.sent++; /* a notification follows */
        results[entry->user_data] = entry->res;
        found++;
    }
    atomic_store_explicit(ring.complete_head, head, memory_order_release);
    return found;
}

static void
enter(unsigned submit, unsigned wait_for)
{
    while (syscall(SYS_io_uring_enter, ring.fd, submit, wait_for, IORING_ENTER_GETEVENTS, NULL, 0) <
           0) {
        if (errno != EINTR) rb_sys_fail("io_uring_enter");
    }
}

static void
run(unsigned requests)
{
    unsigned missing = requests;

    enter(requests, requests);
    while ((missing -= collect()) > 0) {
        enter(0, missing);
    }
}

static size_t
moved(int which, const char *what)
{
    if (results[which] <= 0) {
        errno = -results[which];
        rb_sys_fail(what);
    }
    return (size_t)results[which];
}

/* Bench.uring_send(out_fd, address, length): SEND_ZC */
static VALUE
bench_uring_send(VALUE self, VALUE out_fd, VALUE address, VALUE length)
{
    uintptr_t bytes = NUM2ULL(address);

    for (size_t left = NUM2SIZET(length); left > 0;) {
        queue((struct io_uring_sqe){.opcode = IORING_OP_SEND_ZC,
                                    .ioprio = IORING_SEND_ZC_REPORT_USAGE,
                                    .fd = NUM2INT(out_fd),
                                    .addr = bytes,
                                    .len = left < AT_MOST ? (unsigned)left : AT_MOST,
                                    .msg_flags = MSG_NOSIGNAL | MSG_WAITALL,
                                    .user_data = SEND});
        run(1);
        const size_t sent = moved(SEND, "SEND_ZC");
        bytes += sent;
        left -= sent;
    }
    return Qnil;
}

/* Bench.uring_reap: waits until the kernel holds nothing more of what was sent */
static VALUE
bench_uring_reap(VALUE self)
{
    collect();
    while (zerocopy.completed != zerocopy.sent) {
        enter(0, 1);
        collect();
    }
    return Qnil;
}

/* Bench.uring_counts => [SEND_ZCs that are completed, those of them that the kernel has copied] */
static VALUE
bench_uring_counts(VALUE self)
{
    return rb_ary_new_from_args(2, UINT2NUM(zerocopy.completed), UINT2NUM(zerocopy.copied));
}

static struct io_uring_sqe
splice_out(int queue_r, int out, size_t length, unsigned flags)
{
    return (struct io_uring_sqe){.opcode = IORING_OP_SPLICE,
                                 .splice_fd_in = queue_r,
                                 .splice_off_in = UINT64_MAX,
                                 .fd = out,
                                 .off = UINT64_MAX,
                                 .len = (unsigned)length,
                                 .splice_flags = flags,
                                 .user_data = SPLICE_OUT};
}

/* Bench.uring_splice(out_fd, in_fd, length, pipe_r, pipe_w) */
static VALUE
bench_uring_splice(VALUE self, VALUE out_fd, VALUE in_fd, VALUE length, VALUE pipe_r, VALUE pipe_w)
{
    const int out = NUM2INT(out_fd), queue_r = NUM2INT(pipe_r);
    const size_t end = NUM2SIZET(length);

    for (size_t position = 0; position < end;) {
        const size_t step = end - position < PIPE_SIZE ? end - position : PIPE_SIZE;
        const unsigned more = end - position > step ? SPLICE_F_MORE : 0;

        queue((struct io_uring_sqe){.opcode = IORING_OP_SPLICE,
                                    .flags = IOSQE_IO_LINK,
                                    .splice_fd_in = NUM2INT(in_fd),
                                    .splice_off_in = position,
                                    .fd = NUM2INT(pipe_w),
                                    .off = UINT64_MAX,
                                    .len = (unsigned)step,
                                    .user_data = SPLICE_IN});
        queue(splice_out(queue_r, out, step, more));
        run(2);
        const size_t queued = moved(SPLICE_IN, "SPLICE from the file");
        /* Fewer than asked for breaks the link. */
        size_t sent =
            results[SPLICE_OUT] == -ECANCELED ? 0 : moved(SPLICE_OUT, "SPLICE to the socket");
        while (sent < queued) {
            queue(splice_out(queue_r, out, queued - sent, more));
            run(1);
            sent += moved(SPLICE_OUT, "SPLICE to the socket");
        }
        position += queued;
    }
    return Qnil;
}

void
Init_uring(void)
{
    const VALUE bench = rb_define_module("Bench");

    rb_define_singleton_method(bench, "uring_open", bench_uring_open, 0);
    rb_define_singleton_method(bench, "uring_send", bench_uring_send, 3);
    rb_define_singleton_method(bench, "uring_reap", bench_uring_reap, 0);
    rb_define_singleton_method(bench, "uring_counts", bench_uring_counts, 0);
    rb_define_singleton_method(bench, "uring_splice", bench_uring_splice, 5);
}
