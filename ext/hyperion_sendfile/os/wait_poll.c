/*
 * Waiting where there is no ppoll: poll with the signals held, in slices, and a look between them
 * at whether Ruby wants the thread.
 */
#include "sendfile.h"

#include <errno.h>

static const int64_t SLICE_MS = 50;

static bool
wakeup_pending(void)
{
    sigset_t pending;

    return sigpending(&pending) == 0 && sigismember(&pending, SIGVTALRM) == 1;
}

int
hs_wait(int fd, short events, int64_t timeout_ns, const sigset_t *during)
{
    int64_t deadline = timeout_ns < 0 ? INT64_MAX : hs_now_ns() + timeout_ns;

    (void)during; /* the slices stand in for letting the signals through */
    for (;;) {
        struct pollfd pollfd = {.fd = fd, .events = events};
        int64_t left_ms =
            deadline == INT64_MAX ? SLICE_MS : (deadline - hs_now_ns() + 999999) / 1000000;
        int ready;

        if (left_ms < 0) left_ms = 0;
        ready = poll(&pollfd, 1, (int)(left_ms < SLICE_MS ? left_ms : SLICE_MS));
        if (ready != 0) return ready;
        if (wakeup_pending()) {
            errno = EINTR;
            return -1;
        }
        if (hs_now_ns() >= deadline) return 0;
    }
}
