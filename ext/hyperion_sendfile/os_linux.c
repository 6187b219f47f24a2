/* Linux: sendfile(2), posix_fadvise(2), and how to let go of what TCP holds back. */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

const char *
hs_os_tag(void)
{
    return "linux";
}

bool
hs_os_supported(void)
{
    return true;
}

/*
 * sendfile takes no head, so the head goes ahead under MSG_MORE and shares the first segment; not
 * ahead of a source without offsets, of which sendfile will send nothing.
 */
struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    off_t position = t->offset + t->sent; /* of ours: the file's own position is not used */
    off_t chunk = hs_next_chunk(t);
    struct hs_moved moved = {0};
    ssize_t sent;

    if (t->head_sent < t->head_length) {
        if (chunk > 0 && lseek(t->in_fd, 0, SEEK_CUR) < 0) {
            return (struct hs_moved){.err = errno, .refused = hs_is_refusal(errno)};
        }
        moved = hs_send_head(t, chunk > 0);
        if (moved.err != 0) return moved;
    }
    if (chunk == 0) return moved;

    sent = sendfile(t->out_fd, t->in_fd, &position, (size_t)chunk);
    if (sent < 0) {
        moved.err = errno;
        moved.refused = hs_is_refusal(errno);
    } else {
        moved.body = sent;
    }
    return moved;
}

enum hs_advice
hs_os_advise_sequential(int fd, off_t offset, off_t length)
{
    return posix_fadvise(fd, offset, length, POSIX_FADV_SEQUENTIAL) == 0 ? HS_ADVICE_OK
                                                                         : HS_ADVICE_ERROR;
}

/* A socket tells by SIOCOUTQ, a pipe by FIONREAD, which it answers for both of its ends. */
int
hs_os_queued(int fd)
{
    int queued;

    if (ioctl(fd, SIOCOUTQ, &queued) == 0 || ioctl(fd, FIONREAD, &queued) == 0) return queued;
    return -1;
}

/*
 * Setting TCP_NODELAY sends what is queued, past Nagle's algorithm and MSG_MORE, also where it was
 * set before; resetting it leaves the queue so. Not TCP, or nothing unsent: nothing is held.
 */
void
hs_os_push(int fd, bool more)
{
    int unsent, nodelay, on = 1;
    socklen_t size = sizeof(nodelay);

    if (ioctl(fd, SIOCOUTQNSD, &unsent) < 0 || unsent == 0) return;
    if (getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size) < 0 || (nodelay && !more)) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!nodelay) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof(nodelay));
}
