/*
 * Releases the GVL on behalf of a descriptor, up to Ruby 3.4. IO#close in another thread then wakes
 * this one with an IOError, and waits until this one has left before the descriptor's number can be
 * reused. libruby exports the function, but no public header declares it.
 */
#include <ruby.h>
#include <ruby/thread.h>

#include "glue.h"

#include <errno.h>

VALUE rb_thread_io_blocking_region(rb_blocking_function_t *func, void *data, int fd);

bool
hs_region_guards(VALUE io)
{
    (void)io;
    return true;
}

struct work {
    void (*func)(void *);
    void *data;
};

/* Resets errno, because Ruby would treat a leftover errno as its own: it raises for ETIMEDOUT. */
static VALUE
work_without_gvl(void *argument)
{
    const struct work *work = argument;

    work->func(work->data);
    errno = 0;
    return Qnil;
}

/* May raise an interrupt of another thread or of a signal handler, before or after func. */
void
hs_region(void (*func)(void *), void *data, VALUE io, int fd)
{
    struct work work = {func, data};

    (void)io;
    rb_thread_io_blocking_region((rb_blocking_function_t *)work_without_gvl, &work, fd);
}
