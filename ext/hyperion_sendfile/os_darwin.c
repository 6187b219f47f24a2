/* macOS: sendfile(2) with a header of its own; what it sent is reported along with an error. */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

const char *
hs_os_tag(void)
{
    return "darwin";
}

bool
hs_os_supported(void)
{
    return true;
}

/*
 * The count goes in and comes out by one variable, and includes the header both ways. Going in, 0
 * would mean "to the end of the file". A peer that has reset the connection is told as ENOTCONN.
 */
struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    off_t chunk = hs_next_chunk(t);
    size_t head_left = t->head_length - t->head_sent;
    struct iovec head = {.iov_base = (void *)(uintptr_t)(t->head + t->head_sent),
                         .iov_len = head_left};
    struct sf_hdtr header = {.headers = &head, .hdr_cnt = 1};
    off_t count = (off_t)head_left + chunk;
    struct hs_moved moved;
    int err = 0;

    if (chunk == 0) return hs_send_head(t, false);
    if (sendfile(t->in_fd, t->out_fd, t->offset + t->sent, &count, head_left > 0 ? &header : NULL,
                 0) < 0) {
        err = errno == ENOTCONN ? EPIPE : errno;
    }
    moved = hs_split(t, count, err);
    moved.refused = hs_is_refusal(err);
    return moved;
}

enum hs_advice
hs_os_advise_sequential(int fd, off_t offset, off_t length)
{
    struct radvisory region = {.ra_offset = offset,
                               .ra_count = length > INT_MAX ? INT_MAX : (int)length};

    return fcntl(fd, F_RDADVISE, &region) < 0 ? HS_ADVICE_ERROR : HS_ADVICE_OK;
}

int
hs_os_queued(int fd)
{
    (void)fd;
    return -1;
}

/* Without MSG_MORE only Nagle's algorithm holds anything, and an option set and reset can't undo it. */
void
hs_os_push(int fd, bool more)
{
    (void)fd;
    (void)more;
}
