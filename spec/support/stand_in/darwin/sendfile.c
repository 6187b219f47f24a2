/* sendfile(2) of macOS, as XNU has it. */
#include "../kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/socket.h>

/* ENOTSUP: what a file system says that has no pages to send from. */
static const int TRANSIENT[] = {EAGAIN, EINTR,  EAGAIN, EINTR,   EAGAIN,
                                EINTR,  EAGAIN, EINTR,  ENOTSUP, 0};

/* By writev: what the socket doesn't take of it is left out, and the file goes on behind that. */
static int
send_head(int s, const struct sf_hdtr *hdtr, struct stand_in_fate *fate, off_t *sent)
{
    struct iovec head = hdtr->headers[0];
    ssize_t moved;

    if (hdtr->hdr_cnt != 1 || hdtr->trl_cnt != 0) return EINVAL;
    if (fate->short_head) head.iov_len = (head.iov_len + 1) / 2;
    if (fate->err && fate->after == 0) return fate->err;

    moved = writev(s, &head, 1);
    if (moved < 0) return errno;
    *sent = moved;
    fate->after = fate->after > moved ? fate->after - moved : 0;
    return 0;
}

static int
send_all(int fd, int s, off_t offset, off_t length, const struct sf_hdtr *hdtr,
         struct stand_in_fate fate, off_t *sent)
{
    off_t of_file = 0;
    int err = stand_in_check(fd, s, offset, ENOTSUP, ENOTCONN);

    if (err == 0 && hdtr) err = send_head(s, hdtr, &fate, sent);
    if (err || (length > 0 && *sent >= length)) return err;

    err = stand_in_move(s, fd, offset, length > 0 ? length - *sent : 0, (struct iovec){0}, fate,
                        &of_file);
    *sent += of_file;
    /* It looks for room before it looks whether there is something left to send. */
    return err == 0 && fate.err == EAGAIN ? EAGAIN : err;
}

int
sendfile(int fd, int s, off_t offset, off_t *len, struct sf_hdtr *hdtr, int flags)
{
    struct stand_in_fate fate = stand_in_next(TRANSIENT);
    off_t length = *len;
    int err = flags == 0 ? fate.err : EINVAL;

    if (fate.after != STAND_IN_NOT_TOUCHED) {
        *len = 0;
        if (flags == 0) err = send_all(fd, s, offset, length, hdtr, fate, len);
    }
    errno = err;
    return err ? -1 : 0;
}

#undef fcntl
int
stand_in_fcntl(int fd, int command, ...)
{
    va_list arguments;
    const void *argument;

    va_start(arguments, command);
    argument = va_arg(arguments, const void *);
    va_end(arguments);
    if (command == F_RDADVISE) {
        const struct radvisory *region = argument;

        errno = posix_fadvise(fd, region->ra_offset, region->ra_count, POSIX_FADV_WILLNEED);
        return errno ? -1 : 0;
    }
    return fcntl(fd, command, argument);
}
