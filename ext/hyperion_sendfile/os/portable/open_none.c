/* For systems without openat2(2): Ruby opens the file. */
#include "sendfile.h"

#include <errno.h>

bool
hs_open_below(const char *root, const char *path, enum hs_links links, off_t small,
              const struct hs_found *known, struct hs_found *found)
{
    (void)root;
    (void)path;
    (void)links;
    (void)small;
    (void)known;
    (void)found;
    errno = ENOSYS;
    return false;
}
