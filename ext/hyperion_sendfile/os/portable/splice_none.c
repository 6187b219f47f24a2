/* For systems without splice: it is always refused, and no pipe is ever opened. */
#include "sendfile.h"

#include <errno.h>

bool
hs_splice_compiled(void)
{
    return false;
}

bool
hs_pipe_open(struct hs_owned pipe[2], uintptr_t by)
{
    (void)pipe;
    (void)by;
    return false;
}

void
hs_pipe_widen(int fd)
{
    (void)fd;
}

struct hs_moved
hs_splice(const struct hs_transfer *t)
{
    (void)t;
    return (struct hs_moved){.err = ENOSYS, .refused = true};
}

struct hs_moved
hs_splice_by_own_pipe(const struct hs_transfer *t)
{
    return hs_splice(t);
}
