/*
 * Leaving the GVL where Ruby offers no call on behalf of a descriptor. Callers then own a
 * duplicate of the descriptor, and come back now and then to see whether the original is closed.
 */
#include <ruby.h>
#include <ruby/thread.h>

#include "glue.h"

const bool hs_region_guards_fd = false;

struct work {
    void (*func)(void *);
    void *data;
};

static void *
work_without_gvl(void *argument)
{
    const struct work *work = argument;

    work->func(work->data);
    return NULL;
}

/* INTR_FAIL: no interrupt is raised in between; it is looked for here, with the counts safe. */
void
hs_region(void (*func)(void *), void *data, int fd)
{
    struct work work = {func, data};

    (void)fd;
    rb_nogvl(work_without_gvl, &work, RUBY_UBF_IO, NULL, RB_NOGVL_INTR_FAIL);
    rb_thread_check_ints();
}
