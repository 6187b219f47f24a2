/*
 * Blocks SIGPIPE for a thread while it sends: sendfile and splice raise it, and have no flag like
 * send's MSG_NOSIGNAL. The signal mask belongs to the native thread, therefore it is held only
 * within one stretch of native code.
 */
#include "sendfile.h"

#include <pthread.h>

/* Ruby's own handler for SIGPIPE, which does nothing; NULL: not known. */
static void (*ruby_ignores)(int);

static void (*handler_of(int signal))(int)
{
    struct sigaction action;

    /* Ruby installs its handlers with SA_SIGINFO; both kinds are in the same union. */
    return sigaction(signal, NULL, &action) < 0 ? NULL : action.sa_handler;
}

/*
 * Ruby ignores SIGPIPE and SIGSYS by the same empty handler, and other signals by another one. No
 * program would handle just these two alike, therefore a common handler identifies Ruby's.
 */
void
hs_sigpipe_init(void)
{
    void (*handler)(int) = handler_of(SIGPIPE);

    if (handler != SIG_DFL && handler == handler_of(SIGSYS) && handler != handler_of(SIGTERM)) {
        ruby_ignores = handler;
    }
}

/* Checked every time, because the program may trap SIGPIPE at any moment. */
bool
hs_sigpipe_does_harm(void)
{
    void (*handler)(int) = handler_of(SIGPIPE);

    return handler != SIG_IGN && (handler == SIG_DFL || handler != ruby_ignores);
}

void
hs_sigpipe_hold(struct hs_sigpipe *sigpipe)
{
    sigset_t held, pending;

    if (sigpipe->held || !hs_sigpipe_does_harm()) return;
    sigemptyset(&held);
    sigaddset(&held, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &held, &sigpipe->before);
    sigpipe->held = true;

    /* Only a SIGPIPE that the program itself blocks can already be pending; it must be kept. */
    sigpipe->was_pending = sigismember(&sigpipe->before, SIGPIPE) == 1 &&
                           sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

void
hs_sigpipe_release(const struct hs_sigpipe *sigpipe)
{
    sigset_t pending;

    if (!sigpipe->held) return;
    /*
     * Checked whatever the call returned: sendfile may raise it and still return an earlier count.
     */
    if (!sigpipe->was_pending && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1) {
        hs_discard_sigpipe();
    }
    pthread_sigmask(SIG_SETMASK, &sigpipe->before, NULL);
}
