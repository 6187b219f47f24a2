/* The methods of copy_small: whichever system calls are cheapest for a body of its size. */
#include "sendfile.h"

/*
 * Up to here reading into memory and sending from it costs less than sendfile, which needs to know
 * first whether the socket would make it wait, and what SIGPIPE does; and a head needs no system
 * call of its own. Found by bench/.
 */
static const off_t BUFFERED_UP_TO = 8 * 1024;

/* One body, one call: what sendfile refuses goes by memory at once. */
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
