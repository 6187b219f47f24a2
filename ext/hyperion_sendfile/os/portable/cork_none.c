/* Where there is no TCP_CORK. TCP_NOPUSH is none: what it has held back, its removal does not send everywhere. */
#include "sendfile.h"

bool
hs_cork(int fd)
{
    (void)fd;
    return false;
}

void
hs_uncork(int fd)
{
    (void)fd;
}
