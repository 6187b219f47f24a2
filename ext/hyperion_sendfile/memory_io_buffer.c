/*
 * What a region in memory can be: a String, which is frozen, or an IO::Buffer, which is locked, so that nobody
 * frees it or gives it another size meanwhile. A lock knows of one holder; ours are counted on the buffer.
 */
#include <ruby.h>
#include <ruby/io/buffer.h>

#include "sendfile.h"

static const char HOLDS[] = "@hyperion_sendfile_holds";

const bool hs_memory_has_buffers = true;

size_t
hs_memory_bytes(VALUE memory, const char **base)
{
    const void *bytes;
    size_t size;

    if (RB_TYPE_P(memory, T_STRING)) {
        *base = RSTRING_PTR(memory);
        return (size_t)RSTRING_LEN(memory);
    }
    rb_io_buffer_get_bytes_for_reading(memory, &bytes, &size);
    *base = bytes;
    return bytes ? size : 0;
}

static long
holds(VALUE buffer)
{
    VALUE count = rb_ivar_get(buffer, rb_intern(HOLDS));

    return NIL_P(count) ? 0 : FIX2LONG(count);
}

void
hs_memory_hold(VALUE memory)
{
    long before;

    if (RB_TYPE_P(memory, T_STRING)) return;
    before = holds(memory);
    if (before == 0) rb_io_buffer_lock(memory); /* or an error: somebody else has it */
    rb_ivar_set(memory, rb_intern(HOLDS), LONG2FIX(before + 1));
}

void
hs_memory_let_go(VALUE memory)
{
    long before;

    if (RB_TYPE_P(memory, T_STRING)) return;
    before = holds(memory);
    rb_ivar_set(memory, rb_intern(HOLDS), LONG2FIX(before - 1));
    if (before == 1) rb_io_buffer_unlock(memory);
}
