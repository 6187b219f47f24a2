/*
 * Releases the GVL on behalf of an IO, from Ruby 3.5 on. Like region_number.c, but Ruby takes the
 * IO instead of a number.
 */
#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "glue.h"

#include <errno.h>

VALUE rb_thread_io_blocking_region(struct rb_io *io, rb_blocking_function_t *func, void *data);

bool
hs_region_guards(VALUE io)
{
    return RB_TYPE_P(io, T_FILE);
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

    (void)fd;
    if (hs_region_guards(io)) {
        rb_thread_io_blocking_region(RFILE(rb_io_get_write_io(io))->fptr,
                                     (rb_blocking_function_t *)work_without_gvl, &work);
    } else {
        hs_without_gvl(func, data);
    }
}
