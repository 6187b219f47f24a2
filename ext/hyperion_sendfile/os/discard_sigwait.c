/*
 * Taking back a pending SIGPIPE without sigtimedwait. The caller has seen it pending, and the one
 * that a write raises is pending for its thread alone, so sigwait finds it.
 */
#include "sendfile.h"

void
hs_discard_sigpipe(void)
{
    sigset_t set;
    int signal;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigwait(&set, &signal);
}
