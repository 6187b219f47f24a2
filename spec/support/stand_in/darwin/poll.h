/* macOS has no ppoll. */
#ifndef STAND_IN_DARWIN_POLL_H
#define STAND_IN_DARWIN_POLL_H

#include_next <poll.h>
#pragma GCC poison ppoll

#endif
