/* Linux: sendfile(2) and posix_fadvise(2). */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
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
 * sendfile takes no head. Therefore the head is sent first with MSG_MORE, and shares the first
 * segment. It is not sent if the source has no offsets, because sendfile will refuse such a source.
 */
struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    off_t position = t->offset + t->sent; /* our own variable: the file's position is not used */
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
