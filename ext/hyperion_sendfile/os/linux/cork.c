/* Linux: TCP_CORK, which makes TCP send only whole segments during a few writes. */
#include "sendfile.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

bool
hs_cork(int fd)
{
    int corked, on = 1;
    socklen_t size = sizeof(corked);

    return getsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, &size) == 0 && !corked &&
           setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)) == 0;
}

void
hs_uncork(int fd)
{
    int off = 0;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off));
}
