/* The call of Ruby 3.5 that region_io.c makes, by that of the Rubies before, for HYPERION_REGION=io on those. */
#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#undef rb_thread_io_blocking_region
VALUE rb_thread_io_blocking_region(rb_blocking_function_t *func, void *data, int fd);
VALUE region_by_io(struct rb_io *io, rb_blocking_function_t *func, void *data);

/* Ruby 3.4 declares the members deprecated, but gets no descriptor from this struct in another way. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

VALUE
region_by_io(struct rb_io *io, rb_blocking_function_t *func, void *data)
{
    return rb_thread_io_blocking_region(func, data, io->fd);
}
