/* Where there is no splice: every transfer by it is refused, and no pipe is ever opened. */
#include "sendfile.h"

#include <errno.h>

bool
hs_splice_compiled(void)
{
    return false;
}

bool
hs_pipe_open(int fds[2])
{
    (void)fds;
    return false;
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
