/*
 * The ways to put a region of a file on a TCP socket that zerocopy.rb measures and the gem does not use: by a read or a
 * mapping and send(2), by MSG_ZEROCOPY, by splice(2). The socket is blocking, so none of them needs a loop around
 * poll(2). What the kernel still holds of a MSG_ZEROCOPY is asked for when many are under way, as a server would.
 */
#include <ruby.h> /* first: it asks for the GNU names */

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

#define CHUNK     (256u * 1024u)
#define PIPE_SIZE (1024 * 1024)
#define UNDER_WAY 32u

static char chunk[CHUNK];
static struct {
    uint32_t sent;      /* calls, since the process began */
    uint32_t completed; /* of them: the kernel holds none of their pages any more */
    uint32_t copied;    /* of those: the kernel has made a copy after all */
} zerocopy;

static size_t
least(size_t one, size_t other)
{
    return one < other ? one : other;
}

static void
send_all(int out, const char *bytes, size_t length)
{
    while (length > 0) {
        const ssize_t sent = send(out, bytes, length, MSG_NOSIGNAL);
        if (sent < 0) rb_sys_fail("send");
        bytes += sent;
        length -= (size_t)sent;
    }
}

static char *
map(int in, size_t length)
{
    char *mapping = mmap(NULL, length, PROT_READ, MAP_SHARED | MAP_POPULATE, in, 0);
    if (mapping == MAP_FAILED) rb_sys_fail("mmap");
    return mapping;
}

/* Bench.map(in_fd, length) => its address; the mapping stays */
static VALUE
bench_map(VALUE self, VALUE in_fd, VALUE length)
{
    return ULL2NUM((uintptr_t)map(NUM2INT(in_fd), NUM2SIZET(length)));
}

/* Bench.unmap(address, length) */
static VALUE
bench_unmap(VALUE self, VALUE address, VALUE length)
{
    munmap((void *)(uintptr_t)NUM2ULL(address), NUM2SIZET(length));
    return Qnil;
}

/* Bench.read_send(out_fd, in_fd, length): pread(2) into one buffer, and send(2) */
static VALUE
bench_read_send(VALUE self, VALUE out_fd, VALUE in_fd, VALUE length)
{
    const int out = NUM2INT(out_fd), in = NUM2INT(in_fd);
    const size_t end = NUM2SIZET(length);

    for (size_t position = 0; position < end;) {
        const ssize_t got = pread(in, chunk, least(end - position, CHUNK), (off_t)position);
        if (got <= 0) rb_sys_fail("pread");
        send_all(out, chunk, (size_t)got);
        position += (size_t)got;
    }
    return Qnil;
}

/* Bench.mapped_send(out_fd, address, length) */
static VALUE
bench_mapped_send(VALUE self, VALUE out_fd, VALUE address, VALUE length)
{
    send_all(NUM2INT(out_fd), (const char *)(uintptr_t)NUM2ULL(address), NUM2SIZET(length));
    return Qnil;
}

/* One notification of the socket's error queue, which may stand for several calls; false when there is none. */
static int
next_notification(int out)
{
    char control[256];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};

    if (recvmsg(out, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
        if (errno == EAGAIN) return 0;
        rb_sys_fail("recvmsg");
    }
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        const struct sock_extended_err *note = (void *)CMSG_DATA(part);
        if (part->cmsg_level != SOL_IP || part->cmsg_type != IP_RECVERR ||
            note->ee_origin != SO_EE_ORIGIN_ZEROCOPY) {
            continue;
        }
        const uint32_t calls = note->ee_data - note->ee_info + 1;
        zerocopy.completed += calls;
        if (note->ee_code & SO_EE_CODE_ZEROCOPY_COPIED) zerocopy.copied += calls;
    }
    return 1;
}

static void
reap(int out, int wait)
{
    while (zerocopy.completed != zerocopy.sent) {
        struct pollfd noted = {.fd = out, .events = 0, .revents = 0};
        if (next_notification(out)) continue;
        if (!wait) break;
        if (poll(&noted, 1, -1) < 0 && errno != EINTR) rb_sys_fail("poll");
    }
}

/* Bench.zerocopy_allow(out_fd) */
static VALUE
bench_zerocopy_allow(VALUE self, VALUE out_fd)
{
    const int on = 1;
    if (setsockopt(NUM2INT(out_fd), SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) < 0) {
        rb_sys_fail("SO_ZEROCOPY");
    }
    return Qnil;
}

/* Bench.zerocopy_send(out_fd, address, length): send(2) with MSG_ZEROCOPY */
static VALUE
bench_zerocopy_send(VALUE self, VALUE out_fd, VALUE address, VALUE length)
{
    const int out = NUM2INT(out_fd);
    const char *bytes = (const char *)(uintptr_t)NUM2ULL(address);

    for (size_t left = NUM2SIZET(length); left > 0;) {
        const ssize_t sent = send(out, bytes, left, MSG_ZEROCOPY | MSG_NOSIGNAL);
        if (sent < 0 && errno == ENOBUFS) { /* too much is held already */
            reap(out, 1);
            continue;
        }
        if (sent < 0) rb_sys_fail("send with MSG_ZEROCOPY");
        zerocopy.sent++;
        bytes += sent;
        left -= (size_t)sent;
    }
    if (zerocopy.sent - zerocopy.completed >= UNDER_WAY) reap(out, 0);
    return Qnil;
}

/* Bench.zerocopy_reap(out_fd): waits until the kernel holds nothing more of what was sent */
static VALUE
bench_zerocopy_reap(VALUE self, VALUE out_fd)
{
    reap(NUM2INT(out_fd), 1);
    return Qnil;
}

/* Bench.zerocopy_forget: of a connection that was closed and will notify nobody */
static VALUE
bench_zerocopy_forget(VALUE self)
{
    zerocopy.sent = zerocopy.completed;
    return Qnil;
}

/* Bench.zerocopy_counts => [calls that are completed, those of them that the kernel has copied] */
static VALUE
bench_zerocopy_counts(VALUE self)
{
    return rb_ary_new_from_args(2, UINT2NUM(zerocopy.completed), UINT2NUM(zerocopy.copied));
}

/* Bench.pipe_for_splice => [read fd, write fd], one mebibyte wide where that is allowed */
static VALUE
bench_pipe_for_splice(VALUE self)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) rb_sys_fail("pipe2");
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE);
    return rb_ary_new_from_args(2, INT2NUM(ends[0]), INT2NUM(ends[1]));
}

/* Bench.splice(out_fd, in_fd, length, pipe_r, pipe_w): splice(2) into a pipe and out of it */
static VALUE
bench_splice(VALUE self, VALUE out_fd, VALUE in_fd, VALUE length, VALUE pipe_r, VALUE pipe_w)
{
    const int out = NUM2INT(out_fd), in = NUM2INT(in_fd);
    const int queue_r = NUM2INT(pipe_r), queue_w = NUM2INT(pipe_w);
    const size_t end = NUM2SIZET(length);

    for (loff_t position = 0; (size_t)position < end;) {
        ssize_t queued =
            splice(in, &position, queue_w, NULL, least(end - (size_t)position, PIPE_SIZE), 0);
        if (queued <= 0) rb_sys_fail("splice from the file");
        const unsigned flags = (size_t)position < end ? SPLICE_F_MORE : 0;
        while (queued > 0) {
            const ssize_t sent = splice(queue_r, NULL, out, NULL, (size_t)queued, flags);
            if (sent <= 0) rb_sys_fail("splice to the socket");
            queued -= sent;
        }
    }
    return Qnil;
}

void
Init_zerocopy(void)
{
    const VALUE bench = rb_define_module("Bench");

    rb_define_singleton_method(bench, "map", bench_map, 2);
    rb_define_singleton_method(bench, "unmap", bench_unmap, 2);
    rb_define_singleton_method(bench, "read_send", bench_read_send, 3);
    rb_define_singleton_method(bench, "mapped_send", bench_mapped_send, 3);
    rb_define_singleton_method(bench, "zerocopy_allow", bench_zerocopy_allow, 1);
    rb_define_singleton_method(bench, "zerocopy_send", bench_zerocopy_send, 3);
    rb_define_singleton_method(bench, "zerocopy_reap", bench_zerocopy_reap, 1);
    rb_define_singleton_method(bench, "zerocopy_forget", bench_zerocopy_forget, 0);
    rb_define_singleton_method(bench, "zerocopy_counts", bench_zerocopy_counts, 0);
    rb_define_singleton_method(bench, "pipe_for_splice", bench_pipe_for_splice, 0);
    rb_define_singleton_method(bench, "splice", bench_splice, 5);
}
