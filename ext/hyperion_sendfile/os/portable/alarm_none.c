/*
 * For systems without timers for one thread: only Ruby's signals interrupt a blocked system call.
 */
#include "sendfile.h"

void
hs_alarm_begin(struct hs_alarm *alarm)
{
    alarm->there = false;
}

void
hs_alarm_set(const struct hs_alarm *alarm, int64_t after_ns)
{
    (void)alarm;
    (void)after_ns;
}

void
hs_alarm_end(const struct hs_alarm *alarm)
{
    (void)alarm;
}
