/*
 * For systems without TCP_CORK. TCP_NOPUSH does not replace it: on some systems, resetting it does
 * not flush.
 */
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
