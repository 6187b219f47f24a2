/*
 * FreeBSD: sendfile(2), which takes a header, and can report sent bytes and an error in one call.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

const char *
hs_os_tag(void)
{
    return "bsd";
}

bool
hs_os_supported(void)
{
    return true;
}

/*
 * The header counts in the bytes sent, but not in the requested length, where 0 would mean "to the
 * end of the file". EBUSY: the pages are being read; try again.
 */
struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    off_t chunk = hs_next_chunk(t);
    size_t head_left = t->head_length - t->head_sent;
    struct iovec head = {.iov_base = (void *)(uintptr_t)(t->head + t->head_sent),
                         .iov_len = head_left};
    struct sf_hdtr header = {.headers = &head, .hdr_cnt = 1};
    off_t sent = 0;
    struct hs_moved moved;
    int err = 0;

    if (chunk == 0) return hs_send_head(t, false);
    if (sendfile(t->in_fd, t->out_fd, t->offset + t->sent, (size_t)chunk,
                 head_left > 0 ? &header : NULL, &sent, 0) < 0) {
        err = errno == EBUSY ? EAGAIN : errno;
    }
    moved = hs_split(t, sent, err);
    moved.refused = hs_is_refusal(err);
    return moved;
}

enum hs_advice
hs_os_advise_sequential(int fd, off_t offset, off_t length)
{
    return posix_fadvise(fd, offset, length, POSIX_FADV_SEQUENTIAL) == 0 ? HS_ADVICE_OK
                                                                         : HS_ADVICE_ERROR;
}
