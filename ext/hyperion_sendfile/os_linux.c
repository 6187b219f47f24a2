/* Linux: sendfile(2), posix_fadvise(2), MSG_MORE. */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

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

/* sendfile takes no head, so the head goes ahead under MSG_MORE and shares the first segment. */
struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    off_t position = t->offset + t->sent; /* of ours: the file's own position is not used */
    off_t chunk = hs_next_chunk(t);
    struct hs_moved moved = hs_send_head(t, chunk > 0);
    ssize_t sent;

    if (moved.err != 0 || chunk == 0) return moved;

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

/* Setting TCP_NODELAY pushes what is held, also where it is set already. Not TCP: nothing is held. */
void
hs_os_push(int fd)
{
    int before = 0, on = 1;
    socklen_t size = sizeof(before);

    if (getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &before, &size) < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!before) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &before, sizeof(before));
}
