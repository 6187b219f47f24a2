/*
 * Kernel TLS on Linux: finds out whether the kernel encrypts on a descriptor, and does what the
 * kernel then leaves to its user: notice that the peer is gone, and close a record that waits for
 * more data.
 */
#include "sendfile.h"

#include <errno.h>
#include <linux/tls.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

bool
hs_ktls_compiled(void)
{
    return true;
}

/* Asks for the common part only: the one length that is valid for every cipher. */
bool
hs_ktls_sends(int fd)
{
    struct tls_crypto_info info;
    socklen_t size = sizeof(info);

    return getsockopt(fd, SOL_TLS, TLS_TX, &info, &size) == 0;
}

/*
 * Once any code has consumed the error of a reset, the TLS layer reports success for every byte,
 * and keeps the bytes. Only the state of the connection then shows the reset.
 */
int
hs_ktls_gone(int fd, bool *writable)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
    int err = 0;
    socklen_t size = sizeof(err);

    if (poll(&pollfd, 1, 0) < 0)
        return errno == EINTR ? 0 : errno; /* without an answer, do not go on waiting */
    if (writable) *writable = (pollfd.revents & POLLOUT) != 0;
    if (!(pollfd.revents & (POLLERR | POLLHUP))) return 0;

    /* POLLERR alone may come from the error queue (timestamps), which is not an error. */
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) == 0 && err != 0) return err;
    return pollfd.revents & POLLHUP ? EPIPE : 0;
}

/*
 * Bytes sent with MSG_MORE stay in an open record, which has no timer, and which a close drops. A
 * control message announces the type of the next record, and thereby closes the open one; because
 * no byte follows it, no new record is begun.
 */
void
hs_ktls_close_record(int fd)
{
    static const unsigned char APPLICATION_DATA = 23;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(APPLICATION_DATA))];
    } control = {0};
    struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof(control)};

    control.header.cmsg_level = SOL_TLS;
    control.header.cmsg_type = TLS_SET_RECORD_TYPE;
    control.header.cmsg_len = CMSG_LEN(sizeof(APPLICATION_DATA));
    memcpy(CMSG_DATA(&control.header), &APPLICATION_DATA, sizeof(APPLICATION_DATA));
    (void)sendmsg(fd, &message,
                  MSG_DONTWAIT | MSG_NOSIGNAL); /* best effort: the call has already failed */
}
