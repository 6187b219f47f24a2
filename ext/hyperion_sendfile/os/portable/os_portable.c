/* For other POSIX systems: no sendfile, therefore all bytes go through memory. */
#include "sendfile.h"

#include <errno.h>

const char *
hs_os_tag(void)
{
    return "unsupported";
}

bool
hs_os_supported(void)
{
    return false;
}

struct hs_moved
hs_os_sendfile(const struct hs_transfer *t)
{
    (void)t;
    return (struct hs_moved){.err = ENOSYS, .refused = true};
}

enum hs_advice
hs_os_advise_sequential(int fd, off_t offset, off_t length)
{
    (void)fd;
    (void)offset;
    (void)length;
    return HS_ADVICE_NOOP;
}
