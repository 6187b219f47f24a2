/* sendfile(2) of FreeBSD. */
#include "../kernel.h"

#include <errno.h>
#include <sys/socket.h>

/* EOPNOTSUPP: what a file system says that has no pages to send from. */
static const int TRANSIENT[] = {EAGAIN, EINTR,  EBUSY, EAGAIN,     EINTR,
                                EBUSY,  EAGAIN, EINTR, EOPNOTSUPP, 0};

int
sendfile(int fd, int s, off_t offset, size_t nbytes, struct sf_hdtr *hdtr, off_t *sbytes, int flags)
{
    struct stand_in_fate fate = stand_in_next(TRANSIENT);
    struct iovec head = {0};
    off_t sent = 0;
    int err = fate.err;

    if (fate.after != STAND_IN_NOT_TOUCHED) {
        if (hdtr) head = hdtr->headers[0];
        err = stand_in_check(fd, s, offset, EINVAL, EPIPE);
        if (flags != 0 || (hdtr && (hdtr->hdr_cnt != 1 || hdtr->trl_cnt != 0))) err = EINVAL;
        if (err == 0) err = stand_in_move(s, fd, offset, (off_t)nbytes, head, fate, &sent);
        if (sbytes) *sbytes = sent;
    }
    errno = err;
    return err ? -1 : 0;
}
