/* Reads into several pieces of memory at once. */
#include "frames.h"

#include <sys/uio.h>

ssize_t
hs_read_vector(const void *in, const struct iovec *pieces, int count, off_t offset)
{
    return preadv(*(const int *)in, pieces, count, offset);
}
