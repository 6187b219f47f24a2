/* Linux: what of a file is in the page cache, asked by preadv2(2) with RWF_NOWAIT. */
#include "sendfile.h"

#include <errno.h>
#include <sys/uio.h>

/* The page cache comes and goes in runs of pages; one in so many is asked for. */
static const off_t PROBE_EVERY = 128 * 1024;

ssize_t
hs_read_resident(int fd, void *buffer, size_t size, off_t offset)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    ssize_t got = preadv2(fd, &iov, 1, offset, RWF_NOWAIT);

    if (got > 0) return got;
    errno = EOPNOTSUPP;
    return -1;
}

static bool
must_wait(int fd, off_t offset)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};

    return preadv2(fd, &iov, 1, offset, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

bool
hs_resident(int fd, off_t offset, off_t length)
{
    for (off_t at = 0; at < length; at += PROBE_EVERY) {
        if (must_wait(fd, offset + at)) return false;
    }
    return length <= 0 || !must_wait(fd, offset + length - 1);
}
