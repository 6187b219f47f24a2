/*
 * Releases the GVL if Ruby has no call on behalf of a descriptor. Callers then hold the descriptor,
 * and return now and then to check whether its IO was closed.
 */
#include <ruby.h>

#include "glue.h"

bool
hs_region_guards(VALUE io)
{
    (void)io;
    return false;
}

void
hs_region(void (*func)(void *), void *data, VALUE io, int fd)
{
    (void)io;
    (void)fd;
    hs_without_gvl(func, data);
}
