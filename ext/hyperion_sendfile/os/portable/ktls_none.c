/* For systems without kernel TLS, or with another interface than Linux's: nothing to guard. */
#include "sendfile.h"

bool
hs_ktls_compiled(void)
{
    return false;
}

bool
hs_ktls_sends(int fd)
{
    (void)fd;
    return false;
}

int
hs_ktls_gone(int fd, bool *writable)
{
    (void)fd;
    if (writable) *writable = true;
    return 0;
}

void
hs_ktls_close_record(int fd)
{
    (void)fd;
}
