/* Taking back a pending SIGPIPE where that can be done without the risk of waiting for one. */
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
