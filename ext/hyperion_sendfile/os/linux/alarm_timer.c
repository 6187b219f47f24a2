/*
 * Linux: a timer that sends a signal to this native thread, to interrupt a blocked system call. The
 * signal is the one with which Ruby wakes its threads: no other code may use it, and its handler
 * does nothing.
 */
#include "sendfile.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Repeated, because a signal that comes just before the system call would not interrupt it. */
static const long AGAIN_NS = 50 * 1000 * 1000;

void
hs_alarm_begin(struct hs_alarm *alarm)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGVTALRM};
    timer_t timer;

    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    alarm->there = timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
    if (alarm->there) alarm->timer = timer;
}

void
hs_alarm_set(const struct hs_alarm *alarm, int64_t after_ns)
{
    struct itimerspec spec = {
        .it_interval = {.tv_nsec = AGAIN_NS},
        .it_value = {.tv_sec = (time_t)(after_ns / 1000000000), .tv_nsec = after_ns % 1000000000},
    };

    if (after_ns <= 0) spec.it_value = (struct timespec){.tv_nsec = 1};
    if (alarm->there) timer_settime(alarm->timer, 0, &spec, NULL);
}

void
hs_alarm_end(const struct hs_alarm *alarm)
{
    if (alarm->there) timer_delete(alarm->timer);
}
