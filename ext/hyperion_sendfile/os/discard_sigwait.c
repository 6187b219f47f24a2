/*
 * Discards a pending SIGPIPE without sigtimedwait. The caller has seen that it is pending, and a
 * SIGPIPE raised by a write is pending for its thread only, therefore sigwait returns at once.
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
