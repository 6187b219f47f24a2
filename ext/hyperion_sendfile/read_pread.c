/* Reading into several pieces of memory where only one can be filled at a time. */
#include "frames.h"

#include <sys/uio.h>
#include <unistd.h>

ssize_t
hs_read_vector(int fd, const struct iovec *pieces, int count, off_t offset)
{
    (void)count;
    return pread(fd, pieces->iov_base, pieces->iov_len, offset);
}
