/* macOS has no sigtimedwait. */
#ifndef STAND_IN_DARWIN_SIGNAL_H
#define STAND_IN_DARWIN_SIGNAL_H

#include_next <signal.h>
#pragma GCC poison sigtimedwait

#endif
