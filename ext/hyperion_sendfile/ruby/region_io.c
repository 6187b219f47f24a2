/*
 * Leaving the GVL on behalf of a descriptor, where Ruby has a call for it: IO#close in another
 * thread then wakes this one with an IOError, and waits for it to be out before the descriptor's
 * number can be given to somebody else. libruby exports it; no public header declares it.
 */
#include <ruby.h>
#include <ruby/thread.h>

#include "glue.h"

VALUE rb_thread_io_blocking_region(rb_blocking_function_t *func, void *data, int fd);

const bool hs_region_guards_fd = true;

struct work {
    void (*func)(void *);
    void *data;
};

static VALUE
work_without_gvl(void *argument)
{
    const struct work *work = argument;

    work->func(work->data);
    return Qnil;
}

/* May raise what another thread or a signal handler has for this thread, before or after func. */
void
hs_region(void (*func)(void *), void *data, int fd)
{
    struct work work = {func, data};

    rb_thread_io_blocking_region((rb_blocking_function_t *)work_without_gvl, &work, fd);
}
