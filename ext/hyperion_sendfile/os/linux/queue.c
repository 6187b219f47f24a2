/* What the kernel has taken and not yet delivered, and how to let go of what TCP holds back of it. */
#include "sendfile.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* A socket tells by SIOCOUTQ, a pipe by FIONREAD, which it answers for both of its ends. */
int
hs_queued(int fd)
{
    int queued;

    if (ioctl(fd, SIOCOUTQ, &queued) == 0 || ioctl(fd, FIONREAD, &queued) == 0) return queued;
    return -1;
}

/*
 * Setting TCP_NODELAY sends what is queued, past Nagle's algorithm and MSG_MORE, also where it was
 * set before; resetting it leaves the queue as it is. If the kernel says that nothing is unsent, or the
 * descriptor is not TCP, nothing is held back. A kernel without SIOCOUTQNSD (gVisor, qemu-user) says
 * neither, and then it may be.
 */
void
hs_push(int fd, bool more)
{
    int unsent = 0, nodelay, on = 1;
    socklen_t size = sizeof(nodelay);

    if (ioctl(fd, SIOCOUTQNSD, &unsent) == 0 && unsent == 0) return;
    if (getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size) < 0 || (nodelay && !more)) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!nodelay) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof(nodelay));
}
