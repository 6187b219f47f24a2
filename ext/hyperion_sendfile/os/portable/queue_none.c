/* Where the kernel does not say what it has yet to deliver. */
#include "sendfile.h"

int
hs_queued(int fd)
{
    (void)fd;
    return -1;
}

/* Without MSG_MORE only Nagle's algorithm holds anything, and an option set and reset can't undo it. */
void
hs_push(int fd, bool more)
{
    (void)fd;
    (void)more;
}
