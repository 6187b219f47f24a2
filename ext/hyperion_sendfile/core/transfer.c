/*
 * Runs a transfer, free of Ruby: attempt, count, wait, again. The only place that turns an errno
 * into a status.
 */
#include "frames.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

/*
 * No more than this per system call: a socket that is drained as fast as it is filled never says
 * EAGAIN, and the kernel looks at no signal until the call returns. An attempt that does not wait may be
 * an event loop's, whose other fibers wait for it; and with kernel TLS a call for a peer that is gone keeps
 * all of it in memory.
 */
static const off_t CHUNK = 16 * 1024 * 1024;
static const off_t SHORT_CHUNK = 4 * 1024 * 1024;

/* A descriptor that polls writable and then takes nothing is asked again after a growing pause. */
static const int64_t FIRST_PAUSE_NS = 1000 * 1000;
static const int PAUSE_DOUBLINGS = 5;

/* A call that is interrupted more often than this in a row is asked again after such a pause, too. */
static const int INTERRUPTIONS = 16;

static const int LOOKS_PER_TIMEOUT = 4;

static const int64_t NEVER = INT64_MAX;

int64_t
hs_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What sendfile and splice say of a pair of descriptors that another method may still serve. */
bool
hs_is_refusal(int err)
{
    return err == EINVAL || err == ENOSYS || err == EOPNOTSUPP || err == ENOTSUP || err == EPERM ||
           err == EOVERFLOW || /* Linux: an offset beyond what one of the file systems has */
           err == ESPIPE ||    /* Linux: the source has no offsets */
           err == ENOTSOCK;    /* BSD, Darwin: the destination is no socket */
}

/*
 * Under Nagle's algorithm a second short segment waits for the acknowledgement of the first, which
 * the peer may delay by 40 ms. So the last chunk is never a crumb: what is left, up to two chunks,
 * is halved.
 */
off_t
hs_next_chunk(const struct hs_transfer *t)
{
    off_t remaining = t->length - t->sent;
    off_t chunk = t->wait && !t->ktls ? CHUNK : SHORT_CHUNK;

    if (remaining <= chunk) return remaining;
    return remaining < 2 * chunk ? remaining / 2 : chunk;
}

static bool
complete(const struct hs_transfer *t)
{
    return t->head_sent == t->head_length && t->sent == t->length;
}

/*
 * After a short count: does the file end here? Asked of the inode, because asking the socket by
 * another attempt could use up a pending error. Without a size (a device, a file of /proc), the
 * next call tells; and of frames, which are looked for in the file before the socket is asked.
 */
static bool
at_end_of_file(const struct hs_transfer *t)
{
    struct stat st;

    return !t->frames && t->head_sent == t->head_length && fstat(t->in_fd, &st) == 0 &&
           S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= t->offset + t->sent;
}

static bool
sends_datagrams(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM;
}

/*
 * The status after one attempt. An error that comes with bytes is told where there is a caller to
 * be told both; to one that does not wait, the bytes are told and the error comes with the next call.
 * But a datagram that fails is dropped with the head that was to begin it: the next call could succeed.
 */
static enum hs_status
judge(const struct hs_transfer *t, const struct hs_moved *moved)
{
    bool progress = moved->head > 0 || moved->body > 0;
    bool full = moved->err == EAGAIN || moved->err == EWOULDBLOCK;

    if (complete(t)) return HS_DONE;
    if (moved->err == 0 && !progress) return HS_EOF;
    if (progress && (moved->err == 0 || full || (!t->wait && !sends_datagrams(t->out_fd)))) {
        return HS_PARTIAL;
    }
    if (full) return HS_EAGAIN;
    if (moved->err == EINTR) return HS_INTERRUPTED;
    return moved->refused ? HS_UNSUPPORTED : HS_FAILED;
}

static int64_t
after(int64_t ns)
{
    return ns < 0 ? NEVER : hs_now_ns() + ns;
}

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/*
 * A large send buffer polls writable only when a third of it is free, which a slow reader takes long
 * for. So bytes that leave the kernel count as progress, too: its queue is looked at now and then.
 */
static void
look_at_queue(struct hs_transfer *t)
{
    int before = t->queued;

    t->queued = hs_queued(t->out_fd);
    if (before >= 0 && t->queued != before) t->deadline_ns = after(t->timeout_ns);
}

/* Until the socket takes bytes again. Returns the status to stop with, or HS_EAGAIN to go on. */
static enum hs_status
wait_for_room(struct hs_transfer *t, int *idle, int64_t slice_end, const sigset_t *during)
{
    int64_t until = earlier(t->deadline_ns, slice_end);
    int64_t now = hs_now_ns();
    int64_t left = until == NEVER ? -1 : (until > now ? until - now : 0);
    int ready;

    hs_count(HS_WAITS, 1);
    if (t->deadline_ns != NEVER) {
        if (t->queued < 0) look_at_queue(t);
        left = earlier(left, t->timeout_ns / LOOKS_PER_TIMEOUT + 1);
    }
    if (*idle > 1) {
        int64_t pause = FIRST_PAUSE_NS << (*idle < PAUSE_DOUBLINGS ? *idle : PAUSE_DOUBLINGS);

        ready =
            hs_wait(-1, 0, left < 0 ? pause : earlier(pause, left), during) < 0 ? -1 : left != 0;
    } else {
        ready = hs_wait(t->out_fd, POLLOUT, left, during);
    }

    if (ready > 0) {
        (*idle)++; /* unless the next attempt moves something */
        return HS_EAGAIN;
    }
    if (ready < 0 && errno == EINTR) return HS_INTERRUPTED;
    if (ready < 0) {
        t->err = errno;
        return HS_FAILED;
    }
    now = hs_now_ns();
    if (t->deadline_ns != NEVER) look_at_queue(t);
    if (now >= t->deadline_ns) return HS_TIMEOUT;
    return now >= slice_end ? HS_INTERRUPTED : HS_EAGAIN;
}

static enum hs_status
attempt(struct hs_transfer *t)
{
    int gone = t->ktls ? hs_ktls_gone(t->out_fd, NULL) : 0;
    struct hs_moved moved = {.err = gone};
    enum hs_status status;

    if (!gone) moved = t->method(t);
    t->head_sent += moved.head;
    t->sent += moved.body;
    t->err = moved.err;
    if (moved.head > 0 || moved.body > 0) {
        t->queued = -1;
        t->deadline_ns = after(t->timeout_ns);
        t->interruptions = 0;
    }
    status = judge(t, &moved);
    return status == HS_INTERRUPTED && ++t->interruptions > INTERRUPTIONS ? HS_EAGAIN : status;
}

static enum hs_status
run_once(struct hs_transfer *t)
{
    off_t chunk = hs_next_chunk(t);
    enum hs_status status = attempt(t);

    /* With an EAGAIN it was the socket that ended the attempt, and a pipe may hold more. */
    if (status == HS_PARTIAL && t->err == 0 && t->sent < chunk && at_end_of_file(t)) return HS_EOF;
    return status;
}

static enum hs_status
run_waiting(struct hs_transfer *t, const sigset_t *during)
{
    int64_t slice_end = after(t->slice_ns);
    int idle = 0; /* times in a row that the socket was ready, and then took nothing */

    if (t->deadline_ns == 0) t->deadline_ns = after(t->timeout_ns);

    for (;;) {
        enum hs_status status = attempt(t);

        /* A short count is no reason to wait yet: a reader that keeps pace has made room by now. */
        if (status == HS_PARTIAL) {
            if (t->report) return status;
            idle = 0;
            /* A reader that keeps pace never lets ppoll wait, and so never lets it be woken. */
            if (t->wanted(t->thread)) return HS_INTERRUPTED;
            if (slice_end != NEVER && hs_now_ns() >= slice_end) return HS_INTERRUPTED;
        } else if (status == HS_EAGAIN) {
            status = wait_for_room(t, &idle, slice_end, during);
            if (status != HS_EAGAIN) return status;
        } else {
            return status;
        }
    }
}

static bool
is_sendfile(hs_method *method)
{
    return method == hs_os_sendfile || method == hs_frames_sendfile;
}

/* All that it sends by are sends that raise no SIGPIPE. */
static bool
raises_none(hs_method *method)
{
    return method == hs_buffered || method == hs_buffered_resident ||
           method == hs_frames_buffered || method == hs_frames_in_place;
}

/*
 * Runs until there is something to say, which is in transfer->status; call again after
 * HS_INTERRUPTED.
 */
void
hs_transfer_run(struct hs_transfer *t)
{
    struct hs_signals signals = {0};
    bool stands_in = is_sendfile(t->method) && !hs_never_blocks(t->out_fd);

    t->err = 0;
    /* Whose writes wait in no mode. */
    if (stands_in) t->method = t->frames ? hs_frames_buffered : hs_buffered;
    if (t->wait) {
        hs_signals_hold(&signals);
    } else if (!raises_none(t->method)) {
        hs_signals_hold_pipe(&signals);
    }
    t->status = t->wait ? run_waiting(t, &signals.before) : run_once(t);
    if (stands_in && t->status == HS_FAILED && t->err == ESPIPE) t->status = HS_UNSUPPORTED;
    if (t->status == HS_DONE || t->status == HS_EOF || t->status == HS_FAILED) {
        hs_push(t->out_fd, t->status != HS_DONE); /* there may be no next byte to push these */
    }
    hs_signals_release(&signals);
}
