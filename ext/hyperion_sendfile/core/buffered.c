/*
 * The method that works between any two descriptors: pread into memory, then send. For bodies so
 * small that this is cheaper than sendfile, and for pairs of descriptors that sendfile refuses.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
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

/*
 * A small body is read at once, and a head that fits is copied in front of it, because sending one
 * buffer is cheaper than sending two. The buffer is not on the stack: a fiber may have little stack
 * left, and a large array would reach across its guard page. It is not kept per thread either,
 * because every thread would then keep that much memory.
 */
enum { BODY_ROOM = HS_SMALL_FILE_THRESHOLD, HEAD_ROOM = 4 * 1024 };

/* A body of up to this size is read whole, even if the destination accepts little at a time. */
enum { ASKED_FROM = 8 * 1024 };

/* Whether a write to fd returns rather than wait: O_NONBLOCK is set, or it is a regular file. */
bool
hs_never_blocks(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0) return errno == EBADF; /* the call itself will report it */
    return (flags & O_NONBLOCK) || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode));
}

static ssize_t
write_holding_sigpipe(int fd, const struct iovec *pieces, int count)
{
    struct hs_sigpipe sigpipe = {0};
    ssize_t written;
    int err;

    hs_sigpipe_hold(&sigpipe);
    written = writev(fd, pieces, count);
    err = written < 0 ? errno : 0;
    hs_sigpipe_release(&sigpipe);
    errno = err;
    return written;
}

/*
 * A blocking terminal that polls writable accepts one byte without blocking; more is not
 * guaranteed.
 */
static ssize_t
write_to_terminal(struct pollfd *ready, const char *bytes, size_t length)
{
    size_t done = 0;

    do {
        if (write(ready->fd, bytes + done, 1) != 1) break;
        done++;
    } while (done < length && poll(ready, 1, 0) > 0);
    return done > 0 ? (ssize_t)done : -1;
}

/*
 * For descriptors other than sockets, which have no MSG_DONTWAIT. A blocking pipe that polls
 * writable accepts PIPE_BUF bytes without blocking; more is not guaranteed.
 */
static ssize_t
write_without_waiting(int fd, const struct iovec *pieces, int count)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
    struct iovec first = pieces[0];
    int ready;

    if (hs_never_blocks(fd)) return write_holding_sigpipe(fd, pieces, count);

    ready = poll(&pollfd, 1, 0);
    if (ready == 0) errno = EAGAIN;
    if (ready <= 0) return -1;
    if (first.iov_len > PIPE_BUF) first.iov_len = PIPE_BUF;
    return isatty(fd) ? write_to_terminal(&pollfd, first.iov_base, first.iov_len)
                      : write_holding_sigpipe(fd, &first, 1);
}

static ssize_t
send_pieces(int fd, struct iovec *pieces, int count, int flags)
{
    struct msghdr message = {.msg_iov = pieces};

    if (count == 1) return send(fd, pieces->iov_base, pieces->iov_len, flags);
    message.msg_iovlen = (unsigned)count;
    return sendmsg(fd, &message, flags);
}

ssize_t
hs_send_without_waiting(int fd, struct iovec *pieces, int count, bool more)
{
    struct hs_sigpipe sigpipe = {0};
    ssize_t sent;
    int err;

    if (MSG_NOSIGNAL == 0) hs_sigpipe_hold(&sigpipe);
    sent = send_pieces(fd, pieces, count, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    err = sent < 0 ? errno : 0;
    hs_sigpipe_release(&sigpipe);
    if (err == ENOTSOCK) return write_without_waiting(fd, pieces, count);
    errno = err == EPROTOTYPE ? EPIPE : err; /* macOS, while the socket is being closed */
    return sent;
}

static ssize_t
send_without_waiting(int fd, const void *bytes, size_t length, bool more)
{
    struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};

    return hs_send_without_waiting(fd, &piece, 1, more);
}

/* Splits a count of bytes into those of the head and those of the region. */
struct hs_moved
hs_split(const struct hs_transfer *t, off_t sent, int err)
{
    off_t of_head = (off_t)(t->head_length - t->head_sent);

    if (of_head > sent) of_head = sent;
    return (struct hs_moved){.head = (size_t)of_head, .body = sent - of_head, .err = err};
}

/* Sends the rest of the head alone. A short count is reported with EAGAIN. */
struct hs_moved
hs_send_head(const struct hs_transfer *t, bool more)
{
    struct hs_moved moved = {0};
    size_t asked = t->head_length - t->head_sent;
    ssize_t sent;

    if (asked == 0) return moved;
    sent = send_without_waiting(t->out_fd, t->head + t->head_sent, asked, more);
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
 * Sends the head and the next chunk of the region. A transfer that does not wait sends one piece,
 * because its descriptor is guarded for one system call only. Bytes that were read but not accepted
 * by the socket are dropped and read again: only the file holds unsent bytes.
 */
static struct hs_moved
read_and_send(const struct hs_transfer *t, reader *read, char *buffer, off_t chunk, off_t done)
{
    size_t head = t->head_length - t->head_sent - (size_t)done; /* in front of the next piece */
    size_t room = chunk < BODY_ROOM ? (size_t)chunk : BODY_ROOM;
    off_t end = done + (off_t)head + chunk; /* of head and chunk together */

    memcpy(buffer, t->head + t->head_sent + done, head);
    do {
        off_t body = hs_split(t, done, 0).body;
        off_t left = chunk - body;
        ssize_t got = read(t->in_fd, buffer + head, left < (off_t)room ? (size_t)left : room,
                           t->offset + t->sent + body);
        size_t asked;
        ssize_t sent;

        if (got <= 0) return hs_split(t, done, got < 0 ? errno : 0);

        asked = head + (size_t)got;
        sent = send_without_waiting(t->out_fd, buffer, asked, t->sent + body + got < t->length);
        if (sent < 0) return hs_split(t, done, errno);

        done += sent;
        if ((size_t)sent < asked) return hs_split(t, done, EAGAIN);
        head = 0;
    } while (t->wait && done < end && !hs_wanted(t));
    return hs_split(t, done, 0);
}

/* Whether fd is a pipe or similar in blocking mode, which accepts PIPE_BUF bytes at a time. */
static bool
takes_little(int fd)
{
    struct stat st;

    return !hs_never_blocks(fd) && fstat(fd, &st) == 0 && !S_ISSOCK(st.st_mode);
}

static bool
is_full(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};

    return poll(&pollfd, 1, 0) == 0;
}

/* A head that is too long for the buffer is sent first. */
static struct hs_moved
by_way_of_memory(const struct hs_transfer *t, reader *read)
{
    size_t head = t->head_length - t->head_sent;
    off_t chunk = hs_next_chunk(t);
    struct hs_moved moved = {0};
    char *buffer;

    if (chunk == 0) return hs_send_head(t, false);
    if (chunk > ASKED_FROM && takes_little(t->out_fd)) {
        if (is_full(t->out_fd)) return (struct hs_moved){.err = EAGAIN};
        chunk = PIPE_BUF;
    }
    if (head > HEAD_ROOM) {
        moved = hs_send_head(t, true);
        if (moved.err != 0) return moved;
        head = 0;
    }
    buffer = malloc(head + (chunk < BODY_ROOM ? (size_t)chunk : BODY_ROOM));
    if (!buffer) {
        moved.err = ENOMEM;
        return moved;
    }
    moved = read_and_send(t, read, buffer, chunk, (off_t)moved.head);
    free(buffer);
    return moved;
}

struct hs_moved
hs_buffered(const struct hs_transfer *t)
{
    return by_way_of_memory(t, pread);
}

struct hs_moved
hs_buffered_resident(const struct hs_transfer *t)
{
    struct hs_moved moved = by_way_of_memory(t, hs_read_resident);

    moved.refused = moved.err == EOPNOTSUPP;
    return moved;
}
