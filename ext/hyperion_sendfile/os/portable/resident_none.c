/* Where the page cache can't be asked: nothing is known to be there, and nothing to be missing. */
#include "sendfile.h"

#include <errno.h>

ssize_t
hs_read_resident(int fd, void *buffer, size_t size, off_t offset)
{
    (void)fd;
    (void)buffer;
    (void)size;
    (void)offset;
    errno = EOPNOTSUPP;
    return -1;
}

bool
hs_resident(int fd, off_t offset, off_t length)
{
    (void)fd;
    (void)offset;
    (void)length;
    return true;
}
