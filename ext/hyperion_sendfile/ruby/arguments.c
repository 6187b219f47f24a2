/*
 * Turns Ruby arguments into descriptors and byte counts, or raises an error that says which one is
 * wrong and why.
 */
#include <ruby.h>
#include <ruby/io.h>

#include "glue.h"

#include <limits.h>
#include <math.h>
#include <string.h>

static const off_t LAST_OFFSET = INT64_MAX;

static int
descriptor_number(VALUE number, const char *name)
{
    if (!FIXNUM_P(number) || FIX2LONG(number) > INT_MAX) {
        rb_raise(rb_eRangeError, "%s: %" PRIsVALUE " is no file descriptor", name, number);
    }
    if (FIX2LONG(number) < 0) {
        rb_raise(rb_eArgError, "%s: a file descriptor can't be negative: %" PRIsVALUE, name,
                 number);
    }
    return (int)FIX2LONG(number);
}

/* Not by a Ruby method, because interrupts can be raised when it returns. */
#ifdef HAVE_RB_IO_MODE
bool
hs_closed(VALUE io)
{
    return RTEST(rb_io_closed_p(io));
}

static int
mode(VALUE io)
{
    return rb_io_mode(io);
}

#else
bool
hs_closed(VALUE io)
{
    const rb_io_t *fptr = RFILE(io)->fptr;

    return fptr && fptr->fd < 0;
}

static int
mode(VALUE io)
{
    return RFILE(io)->fptr->mode;
}
#endif

#ifdef HAVE_RB_IO_T_WBUF
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored                                                                     \
    "-Wdeprecated-declarations" /* while the field exists, there is no other way */
static bool
empty_buffer(VALUE io)
{
    return RFILE(rb_io_get_write_io(io))->fptr->wbuf.len == 0;
}
#pragma GCC diagnostic pop
#else
/* Such a Ruby does not tell what is in its buffer. In sync mode there is rarely anything. */
static bool
empty_buffer(VALUE io)
{
    if (!(mode(io) & FMODE_SYNC)) return false;
    rb_io_flush(io);
    return true;
}
#endif

static rb_io_t *
open_file(VALUE io, const char *name, int needed)
{
    rb_io_t *fptr;

    if (hs_closed(io)) rb_raise(rb_eIOError, "%s: closed stream", name);
    GetOpenFile(io, fptr);
    if ((mode(io) & needed) != needed) {
        rb_raise(rb_eIOError, "%s: not opened for %s", name,
                 needed == FMODE_WRITABLE ? "writing" : "reading");
    }
    return fptr;
}

/*
 * Whether Ruby has nothing buffered for out. False for a closed IO and for other objects; the
 * caller reports these.
 */
bool
hs_flushed(VALUE out)
{
    return RB_TYPE_P(out, T_FILE) && RFILE(out)->fptr && !hs_closed(out) && empty_buffer(out);
}

/*
 * The descriptor to write to. out must be a real IO or a number: an object that wraps an IO may
 * encrypt the bytes that are written to it.
 */
int
hs_out_descriptor(VALUE out)
{
    if (RB_INTEGER_TYPE_P(out)) return descriptor_number(out, "out");
    if (!RB_TYPE_P(out, T_FILE)) {
        rb_raise(rb_eTypeError, "out must be an IO or an Integer file descriptor, not %" PRIsVALUE,
                 rb_obj_class(out));
    }
    out = rb_io_get_write_io(out);
    rb_io_check_writable(open_file(out, "out", FMODE_WRITABLE));
    return rb_io_descriptor(out);
}

/*
 * The source: an IO, a number, or an object with to_io, like a Tempfile. to_io is called once,
 * because it may run Ruby code, and because the IO that it returns has to be kept alive.
 */
VALUE
hs_in_source(VALUE in)
{
    VALUE io;

    if (RB_INTEGER_TYPE_P(in) || RB_TYPE_P(in, T_FILE)) return in;
    io = rb_io_check_io(in);
    if (NIL_P(io)) {
        rb_raise(
            rb_eTypeError,
            "in (file) must be an IO, an object with to_io, or an Integer file descriptor, not "
            "%" PRIsVALUE,
            rb_obj_class(in));
    }
    return io;
}

/* The descriptor of the source. Also flushes Ruby's write buffer of the file. */
int
hs_in_descriptor(VALUE source)
{
    if (RB_INTEGER_TYPE_P(source)) return descriptor_number(source, "in (file)");
    rb_io_check_readable(open_file(source, "in (file)", FMODE_READABLE));
    return rb_io_descriptor(source);
}

int
hs_pipe_descriptor(VALUE pipe, const char *name)
{
    if (RB_INTEGER_TYPE_P(pipe)) return descriptor_number(pipe, name);
    if (!RB_TYPE_P(pipe, T_FILE)) {
        rb_raise(rb_eTypeError, "%s must be an IO or an Integer file descriptor, not %" PRIsVALUE,
                 name, rb_obj_class(pipe));
    }
    open_file(pipe, name, 0);
    return rb_io_descriptor(pipe);
}

/* An offset or a length in bytes. */
off_t
hs_bytes(VALUE value, const char *name)
{
    if (!RB_INTEGER_TYPE_P(value)) {
        rb_raise(rb_eTypeError, "%s must be an Integer, not %" PRIsVALUE, name,
                 rb_obj_class(value));
    }
    if (FIXNUM_P(value) ? FIX2LONG(value) < 0 : rb_big_sign(value) == 0) {
        rb_raise(rb_eArgError, "%s must not be negative: %" PRIsVALUE, name, value);
    }
    if (!FIXNUM_P(value) && FIX2INT(rb_big_cmp(value, OFFT2NUM(LAST_OFFSET))) > 0) {
        rb_raise(rb_eRangeError, "%s is beyond the largest file offset: %" PRIsVALUE, name, value);
    }
    return NUM2OFFT(value);
}

void
hs_check_region(off_t offset, off_t length)
{
    if (length > LAST_OFFSET - offset) {
        rb_raise(rb_eRangeError, "offset plus len is beyond the largest file offset");
    }
}

/* Converts seconds to nanoseconds; -1 for nil, no timeout. */
int64_t
hs_timeout_ns(VALUE timeout)
{
    double seconds;

    if (NIL_P(timeout)) return -1;
    seconds = NUM2DBL(timeout);
    if (isnan(seconds) || seconds < 0) {
        rb_raise(rb_eArgError, "timeout must not be negative: %" PRIsVALUE, timeout);
    }
    return seconds > 9e9 ? -1 : (int64_t)(seconds * 1e9);
}

/*
 * Copies the head, because other threads may change the String meanwhile: into the given space, or
 * else into a new String, which the caller keeps alive during the call.
 */
VALUE
hs_set_head(struct hs_transfer *t, VALUE head, char *space, size_t size)
{
    if (NIL_P(head)) return Qnil;
    if (!RB_TYPE_P(head, T_STRING)) {
        rb_raise(rb_eTypeError, "head must be a String, not %" PRIsVALUE, rb_obj_class(head));
    }
    t->head_length = (size_t)RSTRING_LEN(head);
    if (t->head_length > 0 && t->head_length <= size) {
        t->head = memcpy(space, RSTRING_PTR(head), t->head_length);
    } else {
        head = rb_str_new_frozen(head);
        t->head = RSTRING_PTR(head);
    }
    return head;
}
