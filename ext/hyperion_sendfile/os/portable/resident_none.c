/* For systems that cannot tell the state of the page cache: no data is known to be there. */
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
    return length <= 0;
}

bool
hs_tells_resident(int fd, off_t offset, bool may_wait)
{
    (void)fd;
    (void)offset;
    (void)may_wait;
    return false;
}

bool
hs_is_local(int fd)
{
    (void)fd;
    return false;
}
