/*
 * Tells how many bytes the kernel has accepted but not yet delivered, and flushes those that TCP
 * holds back.
 */
#include "sendfile.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* SIOCOUTQ for a socket; FIONREAD for a pipe, which works on both of its ends. */
int
hs_queued(int fd)
{
    int queued;

    if (ioctl(fd, SIOCOUTQ, &queued) == 0 || ioctl(fd, FIONREAD, &queued) == 0) return queued;
    return -1;
}

/*
 * Setting TCP_NODELAY sends the queued bytes, in spite of Nagle's algorithm and MSG_MORE, even if
 * it was already set; resetting it does not affect the queue. If the kernel reports that nothing is
 * unsent, or the descriptor is not TCP, nothing is held back. A kernel without SIOCOUTQNSD (gVisor,
 * qemu-user) cannot tell, and then bytes may be held back.
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
