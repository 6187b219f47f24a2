/* For systems whose kernel does not report undelivered bytes. */
#include "sendfile.h"

int
hs_queued(int fd)
{
    (void)fd;
    return -1;
}

/*
 * Without MSG_MORE, only Nagle's algorithm holds bytes back, and setting and resetting an option
 * does not flush them.
 */
void
hs_push(int fd, bool more)
{
    (void)fd;
    (void)more;
}
