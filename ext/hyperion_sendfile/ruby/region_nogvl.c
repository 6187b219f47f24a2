/*
 * Leaving the GVL where Ruby offers no call on behalf of a descriptor. Callers then hold it, and come back now and then
 * to see whether its IO is closed.
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
