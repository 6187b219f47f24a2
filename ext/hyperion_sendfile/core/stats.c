/* Counters that any thread may increase at any time, with or without the GVL. */
#include "sendfile.h"

#include <stdatomic.h>

static atomic_uint_least64_t counters[HS_COUNTERS];

void
hs_count(unsigned counter, uint64_t by)
{
    atomic_fetch_add_explicit(&counters[counter], by, memory_order_relaxed);
}

uint64_t
hs_counted(unsigned counter)
{
    return atomic_load_explicit(&counters[counter], memory_order_relaxed);
}
