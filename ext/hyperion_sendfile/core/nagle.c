/* Turns Nagle's algorithm off during a transfer, if the destination is a TCP socket. */
#include "sendfile.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static bool
set_nodelay(int fd, int on)
{
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0;
}

/* Returns whether it was on, and therefore has to be turned on again. */
bool
hs_nagle_off(int fd)
{
    int nodelay = 1;
    socklen_t size = sizeof(nodelay);

    return getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size) == 0 && !nodelay &&
           set_nodelay(fd, 1);
}

/* Bytes that are already queued are not affected. Does nothing if the connection has ended. */
void
hs_nagle_on(int fd)
{
    if (set_nodelay(fd, 0)) hs_push(fd, false);
}
