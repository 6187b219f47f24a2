/* macOS: sendfile(2), which can report sent bytes and an error in one call. */
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
 * sendfile would write the head separately, and then go on with the file even if the socket
 * accepted only a part of the head. Therefore one write sends the head together with the first
 * piece of the region.
 */
static struct hs_moved
send_head_and_piece(const struct hs_transfer *t)
{
    struct hs_transfer once = *t;

    once.wait = false;
    return hs_buffered(&once);
}

/* Errors that are raised before the kernel has moved or counted any byte. */
static bool
came_first(int err)
{
    return hs_is_refusal(err) || err == EBADF || err == EFAULT;
}

/*
 * One variable passes the count in and out. As input, 0 would mean "to the end of the file"; a call
 * that is refused early leaves the variable unchanged. After a reset by the peer, the error is
 * ENOTCONN, or EPROTOTYPE while the socket is being closed.
 */
struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    off_t chunk = hs_next_chunk(t);
    off_t count = chunk;
    int err;

    if (chunk == 0) return hs_send_head(t, false);
    if (t->head_sent < t->head_length) return send_head_and_piece(t);

    if (sendfile(t->in_fd, t->out_fd, t->offset + t->sent, &count, NULL, 0) == 0) {
        return (struct hs_moved){.body = count};
    }
    err = errno;
    if (came_first(err) && count == chunk) count = 0;
    return (struct hs_moved){
        .body = count,
        .err = err == ENOTCONN || err == EPROTOTYPE ? EPIPE : err,
        .refused = hs_is_refusal(err),
    };
}

enum hs_advice
hs_os_advise_sequential(int fd, off_t offset, off_t length)
{
    struct radvisory region = {.ra_offset = offset,
                               .ra_count = length > INT_MAX ? INT_MAX : (int)length};

    return fcntl(fd, F_RDADVISE, &region) < 0 ? HS_ADVICE_ERROR : HS_ADVICE_OK;
}
