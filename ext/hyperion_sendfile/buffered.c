/*
 * The method that works between any two descriptors: pread into memory, send from it. For bodies
 * so small that this is cheaper than sendfile, and for pairs of descriptors that sendfile refuses.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MSG_MORE
#define MSG_MORE 0
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* A small body is one read. It stands on the stack, of which a fiber has 512 KiB. */
enum { BUFFER_SIZE = HS_SMALL_FILE_THRESHOLD };

/* Whether a write to fd returns rather than wait: O_NONBLOCK is set, or it is a regular file. */
bool
hs_never_blocks(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || (flags & O_NONBLOCK) || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode));
}

static ssize_t
write_holding_sigpipe(int fd, const struct iovec *iov, int count)
{
    struct hs_signals signals = {0};
    ssize_t written;
    int err;

    hs_signals_hold_pipe(&signals);
    written = writev(fd, iov, count);
    err = errno;
    hs_signals_release(&signals);
    errno = err;
    return written;
}

/*
 * For what is no socket, and so has no MSG_DONTWAIT. A blocking pipe that polls writable takes
 * PIPE_BUF bytes without waiting, and no more is promised.
 */
static ssize_t
write_without_waiting(int fd, struct iovec *iov, int count)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
    size_t room = PIPE_BUF;

    if (!hs_never_blocks(fd)) {
        int ready = poll(&pollfd, 1, 0);

        if (ready == 0) errno = EAGAIN;
        if (ready <= 0) return -1;
        for (int i = 0; i < count; i++) {
            if (iov[i].iov_len > room) iov[i].iov_len = room;
            room -= iov[i].iov_len;
        }
    }
    return write_holding_sigpipe(fd, iov, count);
}

/* One gathered write that neither waits, whatever the descriptor's mode, nor raises SIGPIPE. */
static ssize_t
send_without_waiting(int fd, struct iovec *iov, int count, bool more)
{
    struct msghdr message = {.msg_iov = iov};
    struct hs_signals signals = {0};
    ssize_t sent;
    int err;

    /* msg_iovlen is an int or a size_t, depending on the system. */
    message.msg_iovlen = (unsigned)count;
    if (MSG_NOSIGNAL == 0) hs_signals_hold_pipe(&signals);
    sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    err = errno;
    hs_signals_release(&signals);
    if (sent < 0 && err == ENOTSOCK) return write_without_waiting(fd, iov, count);
    errno = err;
    return sent;
}

static struct iovec
rest_of_head(const struct hs_transfer *t)
{
    /* iovec has no const; the kernel only reads from it here. */
    return (struct iovec){
        .iov_base = (void *)(uintptr_t)(t->head + t->head_sent),
        .iov_len = t->head_length - t->head_sent,
    };
}

/* Bytes of head and region laid end to end, told apart. */
struct hs_moved
hs_split(const struct hs_transfer *t, off_t sent, int err)
{
    off_t of_head = (off_t)(t->head_length - t->head_sent);

    if (of_head > sent) of_head = sent;
    return (struct hs_moved){.head = (size_t)of_head, .body = sent - of_head, .err = err};
}

/* What is left of the head alone. A short count comes with EAGAIN. */
struct hs_moved
hs_send_head(const struct hs_transfer *t, bool more)
{
    struct hs_moved moved = {0};
    struct iovec iov = rest_of_head(t);
    size_t asked = iov.iov_len;
    ssize_t sent;

    if (asked == 0) return moved;
    sent = send_without_waiting(t->out_fd, &iov, 1, more);
    if (sent < 0) {
        moved.err = errno;
    } else {
        moved.head = (size_t)sent;
        if (moved.head < asked) moved.err = EAGAIN;
    }
    return moved;
}

struct hs_moved
hs_head_alone(const struct hs_transfer *t)
{
    return hs_send_head(t, t->length > 0);
}

typedef ssize_t reader(int fd, void *buffer, size_t size, off_t offset);

/*
 * Head and region in gathered writes, up to the next chunk of it; a transfer that does not wait gets
 * one, since it reads by a descriptor that is good for one system call. Bytes read and not taken by
 * the socket are dropped and read again: the file is the only place that holds what is unsent.
 */
static struct hs_moved
read_and_send(const struct hs_transfer *t, reader *read)
{
    char buffer[BUFFER_SIZE];
    struct iovec iov[2] = {rest_of_head(t), {.iov_base = buffer}};
    off_t chunk = hs_next_chunk(t);
    off_t end = (off_t)iov[0].iov_len + chunk; /* of head and chunk laid end to end */
    off_t done = 0;

    if (chunk == 0) return hs_send_head(t, false);

    do {
        off_t body = hs_split(t, done, 0).body;
        off_t left = chunk - body;
        ssize_t got = read(t->in_fd, buffer, left < BUFFER_SIZE ? (size_t)left : BUFFER_SIZE,
                           t->offset + t->sent + body);
        size_t asked;
        ssize_t sent;

        if (got <= 0) return hs_split(t, done, got < 0 ? errno : 0);

        iov[1].iov_len = (size_t)got;
        asked = iov[0].iov_len + iov[1].iov_len;
        sent = send_without_waiting(t->out_fd, iov, 2, t->sent + body + got < t->length);
        if (sent < 0) return hs_split(t, done, errno);

        done += sent;
        if ((size_t)sent < asked) return hs_split(t, done, EAGAIN);
        iov[0].iov_len = 0;
    } while (t->wait && done < end);
    return hs_split(t, done, 0);
}

struct hs_moved
hs_buffered(const struct hs_transfer *t)
{
    return read_and_send(t, pread);
}

struct hs_moved
hs_buffered_resident(const struct hs_transfer *t)
{
    struct hs_moved moved = read_and_send(t, hs_read_resident);

    moved.refused = moved.err == EOPNOTSUPP;
    return moved;
}
