/* Waiting where ppoll exists: it lets signals in for exactly the time of the wait. */
#include "sendfile.h"

#include <stdint.h>
#include <time.h>

int
hs_wait(int fd, short events, int64_t timeout_ns, const sigset_t *during)
{
    struct pollfd pollfd = {.fd = fd, .events = events};
    int64_t seconds = timeout_ns / 1000000000;
    struct timespec timeout = {
        .tv_sec = (time_t)(seconds < INT32_MAX ? seconds : INT32_MAX), /* time_t may have 32 bits */
        .tv_nsec = (long)(timeout_ns % 1000000000),
    };

    return ppoll(&pollfd, 1, timeout_ns < 0 ? NULL : &timeout, during);
}
