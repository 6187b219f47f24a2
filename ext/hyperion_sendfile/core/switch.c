/* The switch with which an operator turns sendfile and splice off. */
#include "sendfile.h"

#include <errno.h>
#include <stdatomic.h>

static atomic_bool off;

void
hs_kernel_copies_set(bool on)
{
    atomic_store(&off, !on);
}

bool
hs_kernel_copies(void)
{
    return !atomic_load(&off);
}

/* Refuses like a kernel that does not support the call for these descriptors. */
static struct hs_moved
refuse(const struct hs_transfer *t)
{
    (void)t;
    return (struct hs_moved){.err = EOPNOTSUPP, .refused = true};
}

hs_method *
hs_kernel_method(hs_method *method)
{
    return hs_kernel_copies() ? method : refuse;
}
