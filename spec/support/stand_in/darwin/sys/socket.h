/* What macOS declares in <sys/socket.h> beyond POSIX, as far as os_darwin.c uses it. */
#ifndef STAND_IN_DARWIN_SYS_SOCKET_H
#define STAND_IN_DARWIN_SYS_SOCKET_H

#include_next <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#undef MSG_MORE
#undef MSG_NOSIGNAL

struct sf_hdtr {
    struct iovec *headers;
    int hdr_cnt;
    struct iovec *trailers;
    int trl_cnt;
};

/* The C library has another sendfile. */
#define sendfile stand_in_sendfile
int sendfile(int fd, int s, off_t offset, off_t *len, struct sf_hdtr *hdtr, int flags);

#endif
