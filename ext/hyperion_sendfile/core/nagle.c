/* Nagle's algorithm put aside for the length of a transfer, on whatever is a TCP socket. */
#include "sendfile.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static bool
set_nodelay(int fd, int on)
{
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0;
}

/* Whether it was on, and so has to be put back. */
bool
hs_nagle_off(int fd)
{
    int nodelay = 1;
    socklen_t size = sizeof(nodelay);

    return getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size) == 0 && !nodelay &&
           set_nodelay(fd, 1);
}

/* What is queued by then does not come under it. On a connection that is gone it does nothing. */
void
hs_nagle_on(int fd)
{
    if (set_nodelay(fd, 0)) hs_push(fd, false);
}
