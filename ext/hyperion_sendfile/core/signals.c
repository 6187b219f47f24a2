/*
 * Two signals are kept from a thread while it sends: SIGPIPE, which sendfile and splice raise
 * where send has MSG_NOSIGNAL, and SIGVTALRM, with which Ruby wakes a thread that is to be
 * interrupted. Held back, the latter stays pending between two system calls and ends a ppoll at
 * once, so that a wake-up can't fall into the gap before a wait.
 */
#include "sendfile.h"

#include <pthread.h>

/* Ruby's own handler for SIGPIPE, which does nothing. NULL: not known. */
static void (*ruby_ignores)(int);

static void (*handler_of(int signal))(int)
{
    struct sigaction action;

    /* Ruby installs its handlers with SA_SIGINFO; either kind stands in the same union. */
    return sigaction(signal, NULL, &action) < 0 ? NULL : action.sa_handler;
}

/*
 * Ruby ignores SIGPIPE and SIGSYS by one and the same empty handler, other signals by another, and
 * nobody else would handle just these two alike: so it is known by sight.
 */
void
hs_signals_init(void)
{
    void (*handler)(int) = handler_of(SIGPIPE);

    if (handler != SIG_DFL && handler == handler_of(SIGSYS) && handler != handler_of(SIGTERM)) {
        ruby_ignores = handler;
    }
}

/* Asked every time: the program may trap SIGPIPE at any moment. */
static bool
sigpipe_does_harm(void)
{
    void (*handler)(int) = handler_of(SIGPIPE);

    return handler != SIG_IGN && (handler == SIG_DFL || handler != ruby_ignores);
}

static void
hold(struct hs_signals *signals, const sigset_t *held)
{
    sigset_t pending;

    pthread_sigmask(SIG_BLOCK, held, &signals->before);
    signals->held = true;

    /* Only a SIGPIPE that the program itself holds back can be pending already, and is its own. */
    signals->sigpipe_was_pending = sigismember(&signals->before, SIGPIPE) == 1 &&
                                   sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

void
hs_signals_hold(struct hs_signals *signals)
{
    sigset_t held;

    sigemptyset(&held);
    sigaddset(&held, SIGPIPE);
    sigaddset(&held, SIGVTALRM);
    hold(signals, &held);
}

void
hs_signals_hold_pipe(struct hs_signals *signals)
{
    sigset_t held;

    if (!sigpipe_does_harm()) return;
    sigemptyset(&held);
    sigaddset(&held, SIGPIPE);
    hold(signals, &held);
}

void
hs_signals_release(const struct hs_signals *signals)
{
    sigset_t pending;

    if (!signals->held) return;
    /* Looked for whatever was reported: sendfile may raise it and still return an earlier count. */
    if (!signals->sigpipe_was_pending && sigpending(&pending) == 0 &&
        sigismember(&pending, SIGPIPE) == 1) {
        hs_discard_sigpipe();
    }
    pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
}
