/*
 * Runs a transfer without Ruby: attempt, count, wait, repeat. Only this file turns an errno into a
 * status.
 */
#include "frames.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

/*
 * The most bytes per system call, because a socket that is drained as fast as it is filled never
 * returns EAGAIN. SHORT_CHUNK is for attempts that do not wait, because other fibers of an event
 * loop wait for them, and for kernel TLS, because a call for a peer that is gone keeps all its
 * bytes in memory.
 */
static const off_t CHUNK = 16 * 1024 * 1024;
static const off_t SHORT_CHUNK = 4 * 1024 * 1024;

/* If a descriptor polls writable but accepts nothing, it is retried after increasing pauses. */
static const int64_t FIRST_PAUSE_NS = 1000 * 1000;
static const int PAUSE_DOUBLINGS = 5;

/* A call that is interrupted more often than this in a row is also retried after such a pause. */
static const int INTERRUPTIONS = 16;

static const int LOOKS_PER_TIMEOUT = 4;

/*
 * The size of a system call is chosen so that it takes about this long, because in some kernels no
 * signal ends it early, and the source may be a slow disk or a network file system. A call of less
 * than LEAST_CHUNK would not be quicker, because the kernel reads ahead.
 */
static const int64_t CALL_NS = 50 * 1000 * 1000;
static const off_t LEAST_CHUNK = 64 * 1024;

static const int64_t NEVER = INT64_MAX;

int64_t
hs_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Errors of sendfile and splice after which another method may still serve the same descriptors. */
bool
hs_is_refusal(int err)
{
    return err == EINVAL || err == ENOSYS || err == EOPNOTSUPP || err == ENOTSUP || err == EPERM ||
           err == EOVERFLOW || /* Linux: an offset beyond the limit of a file system */
           err == ESPIPE ||    /* Linux: the source has no offsets */
           err == ENOTSOCK;    /* BSD, Darwin: the destination is not a socket */
}

/*
 * Under Nagle's algorithm, a second short segment waits for the acknowledgement of the first, which
 * the peer may delay by 40 ms. Therefore the last chunk is never tiny: if less than two chunks are
 * left, they are halved.
 */
off_t
hs_next_chunk(const struct hs_transfer *t)
{
    off_t remaining = t->length - t->sent;
    off_t most = t->wait && !t->ktls ? CHUNK : SHORT_CHUNK;
    off_t chunk = t->chunk > 0 && t->chunk < most ? t->chunk : most;

    if (remaining <= chunk) return remaining;
    return remaining < 2 * chunk ? remaining / 2 : chunk;
}

static bool
complete(const struct hs_transfer *t)
{
    return t->head_sent == t->head_length && t->sent == t->length;
}

/*
 * After a short count: does the file end here? The inode tells; another attempt on the socket could
 * consume a pending error. For a file without a size (a device, a file of /proc), the next call
 * tells. Frames do not need this, because the file is checked before each of them is sent.
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
 * The status after one attempt. If an error comes with bytes, a transfer that waits reports both.
 * One that does not wait reports the bytes, and the next call gets the error. A datagram is an
 * exception: if it fails, the kernel drops it together with the head that began it, and the next
 * call could succeed.
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
 * A large send buffer polls writable only when a third of it is free, which takes long with a slow
 * reader. Therefore bytes that leave the kernel count as progress as well: its queue is checked now
 * and then.
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
wait_for_room(struct hs_transfer *t, int *idle, int64_t slice_end)
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

        ready = hs_wait(-1, 0, left < 0 ? pause : earlier(pause, left)) < 0 ? -1 : left != 0;
    } else {
        ready = hs_wait(t->out_fd, POLLOUT, left);
    }

    if (ready > 0) {
        (*idle)++; /* reset if the next attempt moves something */
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

/*
 * Adapts the size of the next system call, so that it takes about CALL_NS, judging by the last one.
 */
static void
adapt_chunk(struct hs_transfer *t, off_t moved, int64_t took)
{
    if (took > 2 * CALL_NS) {
        t->chunk = moved / (took / CALL_NS);
        if (t->chunk < LEAST_CHUNK) t->chunk = LEAST_CHUNK;
    } else if (t->chunk > 0 && t->chunk < CHUNK && took < CALL_NS / 2) {
        t->chunk *= 2;
    }
}

bool
hs_wanted(const struct hs_transfer *t)
{
    return t->wanted(t->thread);
}

static enum hs_status
attempt(struct hs_transfer *t)
{
    int gone = t->ktls ? hs_ktls_gone(t->out_fd, NULL) : 0;
    struct hs_moved moved = {.err = gone};
    int64_t begun = t->wait ? hs_now_ns() : 0;
    int64_t took;
    enum hs_status status;

    if (!gone) moved = t->method(t);
    took = t->wait ? hs_now_ns() - begun : 0;
    t->head_sent += moved.head;
    t->sent += moved.body;
    t->err = moved.err;
    if (moved.head > 0 || moved.body > 0) {
        t->queued = -1;
        t->deadline_ns = after(t->timeout_ns);
        t->interruptions = t->doublings = 0;
    } else if (moved.err == EAGAIN && t->wait && t->deadline_ns != NEVER) {
        t->deadline_ns += took; /* it waited for the file, not for the peer */
    }
    if (t->wait) adapt_chunk(t, moved.body, took);
    status = judge(t, &moved);
    return status == HS_INTERRUPTED && ++t->interruptions > INTERRUPTIONS ? HS_EAGAIN : status;
}

static enum hs_status
run_once(struct hs_transfer *t)
{
    off_t chunk = hs_next_chunk(t);
    enum hs_status status = attempt(t);

    /* After EAGAIN, the socket ended the attempt, and a pipe may hold more. */
    if (status == HS_PARTIAL && t->err == 0 && t->sent < chunk && at_end_of_file(t)) return HS_EOF;
    return status;
}

static bool
is_sendfile(hs_method *method)
{
    return method == hs_os_sendfile || method == hs_frames_sendfile;
}

/*
 * For a destination in blocking mode, sendfile is replaced by a method that never blocks. Another
 * process that shares the file description may change the mode at any time, therefore it is checked
 * again after each wait.
 */
static void
choose_method(struct hs_transfer *t)
{
    if (!is_sendfile(t->method) || hs_never_blocks(t->out_fd)) return;
    t->method = t->frames ? hs_frames_buffered : hs_buffered;
    t->stands_in = true;
}

/* Whether the method only uses sends that raise no SIGPIPE. */
static bool
raises_none(hs_method *method)
{
    return method == hs_buffered || method == hs_buffered_resident ||
           method == hs_frames_buffered || method == hs_frames_in_place;
}

/*
 * A limit for a system call that blocks after all, because the mode has changed during the call, or
 * another writer took the room. The alarm interrupts it at the deadline that was valid when the
 * alarm was set.
 */
struct limit {
    struct hs_alarm alarm;
    int64_t due;
};

static void
set_limit(const struct hs_transfer *t, struct limit *limit)
{
    if (!limit->alarm.there) return;
    limit->due = t->deadline_ns + ((t->timeout_ns << t->doublings) - t->timeout_ns);
    hs_alarm_set(&limit->alarm, limit->due - hs_now_ns());
}

static void
begin_limit(const struct hs_transfer *t, struct limit *limit)
{
    limit->due = NEVER;
    if (t->deadline_ns == NEVER) return;
    hs_alarm_begin(&limit->alarm);
    set_limit(t, limit);
}

/*
 * Called after a system call that a signal may have interrupted. HS_TIMEOUT: it waited for the
 * peer. If the destination has room, it waited for the source instead. The source then gets more
 * time, because an interrupted read may have to begin again.
 */
static enum hs_status
look_at_limit(struct hs_transfer *t, struct limit *limit, enum hs_status status)
{
    if (limit->due == NEVER || hs_now_ns() < limit->due) return status;
    if (status != HS_PARTIAL) {
        look_at_queue(t);
        if (hs_now_ns() >= t->deadline_ns) {
            if (hs_wait(t->out_fd, POLLOUT, 0) == 0) return HS_TIMEOUT;
            if (t->doublings < PAUSE_DOUBLINGS) t->doublings++;
            t->deadline_ns = after(t->timeout_ns);
        }
    }
    set_limit(t, limit);
    return status;
}

static enum hs_status
run_waiting(struct hs_transfer *t, struct hs_sigpipe *sigpipe)
{
    struct limit limit = {.due = NEVER};
    int64_t slice_end = after(t->slice_ns);
    int idle = 0; /* times in a row that the socket was ready but accepted nothing */
    enum hs_status status;

    if (t->deadline_ns == 0) t->deadline_ns = after(t->timeout_ns);
    begin_limit(t, &limit);

    for (;;) {
        status = attempt(t);
        if (status == HS_PARTIAL || status == HS_INTERRUPTED) {
            status = look_at_limit(t, &limit, status);
        }
        /* A short count is no reason to wait: a fast reader has made room by now. */
        if (status == HS_PARTIAL) {
            if (t->report) break;
            idle = 0;
            /* With a fast reader, poll never waits, and therefore no signal can interrupt it. */
            if (hs_wanted(t)) status = HS_INTERRUPTED;
            if (slice_end != NEVER && hs_now_ns() >= slice_end) status = HS_INTERRUPTED;
        } else if (status == HS_EAGAIN) {
            status = wait_for_room(t, &idle, slice_end);
            choose_method(t);
            if (!raises_none(t->method)) hs_sigpipe_hold(sigpipe);
        }
        if (status != HS_EAGAIN && status != HS_PARTIAL) break;
    }
    hs_alarm_end(&limit.alarm);
    return status;
}

/*
 * Runs until there is a result, which is in transfer->status; call again after HS_INTERRUPTED.
 */
void
hs_transfer_run(struct hs_transfer *t)
{
    struct hs_sigpipe sigpipe = {0};

    t->err = 0;
    choose_method(t);
    if (!raises_none(t->method)) hs_sigpipe_hold(&sigpipe);
    t->status = t->wait ? run_waiting(t, &sigpipe) : run_once(t);
    if (t->stands_in && t->status == HS_FAILED && t->err == ESPIPE) t->status = HS_UNSUPPORTED;
    if (t->status == HS_DONE || t->status == HS_EOF || t->status == HS_FAILED) {
        hs_push(t->out_fd, t->status != HS_DONE); /* perhaps no byte follows to push these */
    }
    hs_sigpipe_release(&sigpipe);
}
