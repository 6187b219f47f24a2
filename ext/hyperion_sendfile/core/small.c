/* The methods of copy_small: the cheapest system calls for the size of the body. */
#include "sendfile.h"

/*
 * Up to this size, reading into memory and sending from it costs less than sendfile: sendfile first
 * needs to know whether the socket would block it, and what SIGPIPE does, and a head needs a
 * separate system call. bench/ finds the limit.
 */
static const off_t BUFFERED_UP_TO = 8 * 1024;

/* A body that sendfile refuses is sent through memory within the same call. */
static struct hs_moved
sendfile_or_buffered(const struct hs_transfer *t)
{
    struct hs_moved moved;

    if (!hs_never_blocks(t->out_fd)) return hs_buffered(t);

    moved = hs_os_sendfile(t);
    return moved.refused && moved.head == 0 && moved.body == 0 ? hs_buffered(t) : moved;
}

hs_method *
hs_small_method(const struct hs_transfer *t)
{
    return t->length <= BUFFERED_UP_TO || !hs_kernel_copies() ? hs_buffered : sendfile_or_buffered;
}
