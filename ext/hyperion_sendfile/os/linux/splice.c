/*
 * splice(2): file → pipe → socket. The pipe holds the next bytes of the file: bytes that a call
 * leaves in it are drained by the next call before anything is read, and are counted only then.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A larger pipe means fewer rounds of fill and drain. Only a hint: the kernel may refuse. */
static const int PIPE_SIZE = 256 * 1024;

bool
hs_splice_compiled(void)
{
    return true;
}

bool
hs_pipe_open(struct hs_owned pipe[2], uintptr_t by)
{
    int fds[2];
    bool made, owned = false;

    hs_own_begin();
    made = pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0;
    for (int i = 0; made && i < 2; i++)
        owned = hs_own(&pipe[i], fds[i], by) && (owned || i == 0);
    hs_own_end();
    return owned;
}

void
hs_pipe_widen(int fd)
{
    (void)fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE);
}

static struct hs_moved
stopped(off_t body, int err)
{
    return (struct hs_moved){.body = body, .err = err, .refused = hs_is_refusal(err)};
}

/*
 * SPLICE_F_NONBLOCK applies only to the pipe. The drain would block on a socket in blocking mode,
 * therefore such a socket is refused.
 */
struct hs_moved
hs_splice(const struct hs_transfer *t)
{
    off_t chunk = hs_next_chunk(t);
    off_t done = 0;
    int queued;

    if (!hs_never_blocks(t->out_fd)) return stopped(0, EOPNOTSUPP);
    if (ioctl(t->pipe_r, FIONREAD, &queued) < 0)
        return stopped(0, errno == ENOTTY ? EINVAL : errno);

    while (done < chunk) {
        off_t left = chunk - done;
        bool more;
        ssize_t drained;

        if (queued == 0) {
            off_t position = t->offset + t->sent + done;
            ssize_t filled = splice(t->in_fd, &position, t->pipe_w, NULL, (size_t)left,
                                    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

            if (filled <= 0) return stopped(done, filled < 0 ? errno : 0);
            queued = (int)filled;
        }

        /* Only while more of this response follows: its last bytes would wait for a timer. */
        more = t->sent + done + queued < t->length;
        drained = splice(t->pipe_r, NULL, t->out_fd, NULL, (size_t)(queued < left ? queued : left),
                         SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (more ? SPLICE_F_MORE : 0));
        if (drained < 0) return stopped(done, errno);
        if (drained == 0) return stopped(done, EIO); /* not the end of the file: bytes are queued */
        queued -= (int)drained;
        done += drained;
        if (hs_wanted(t)) break;
    }
    return stopped(done, 0);
}

/*
 * Uses a pipe that exists only during the attempt; bytes left in it are read again from the file.
 * If no pipe can be opened, the method is refused, because another method needs none.
 */
struct hs_moved
hs_splice_by_own_pipe(const struct hs_transfer *transfer)
{
    struct hs_transfer t = *transfer;
    struct hs_owned pipe[2] = {HS_OWNS_NOTHING, HS_OWNS_NOTHING};
    struct hs_moved moved;

    if (hs_pipe_open(pipe, t.thread)) {
        t.pipe_r = pipe[0].fd;
        t.pipe_w = pipe[1].fd;
        moved = hs_splice(&t);
    } else {
        moved = (struct hs_moved){.err = errno, .refused = true};
    }
    hs_own_close(&pipe[0]);
    hs_own_close(&pipe[1]);
    return moved;
}
