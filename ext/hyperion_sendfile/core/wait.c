/*
 * Waits for a descriptor. A signal ends the wait: Ruby wakes a thread by a signal, and repeats it
 * until the thread reacts.
 */
#include "sendfile.h"

#include <limits.h>

int
hs_wait(int fd, short events, int64_t timeout_ns)
{
    struct pollfd pollfd = {.fd = fd, .events = events};
    int64_t ms = timeout_ns < 0 ? -1 : timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);

    return poll(&pollfd, 1, ms < INT_MAX ? (int)ms : INT_MAX);
}
