/* Discards a pending SIGPIPE by sigtimedwait, which never blocks. */
#include "sendfile.h"

#include <errno.h>
#include <time.h>

void
hs_discard_sigpipe(void)
{
    sigset_t set;
    struct timespec at_once = {0};

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR)
        continue;
}
