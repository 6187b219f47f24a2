/*
 * What a region in memory can be: a String, which is frozen, or an IO::Buffer, which is locked, so that nobody
 * frees it or gives it another size meanwhile. A lock knows of one holder; ours are counted here, since a buffer
 * may be frozen.
 */
#include <ruby.h>
#include <ruby/io/buffer.h>

#include "glue.h"

#include <stdlib.h>

/* Of a buffer that is held. It stays where it is, being marked, and belongs to one Ractor. */
struct hold {
    VALUE memory;
    long count;
    struct hold *next;
};

/* Under the lock of owned.c, which a fork takes, too; nothing of Ruby's is called there. */
static struct hold *holds;

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

/* Holds it once more (1) or less (-1), and tells how often it is held then: 0 when it was not, or is not any more. */
static long
count(VALUE memory, long by)
{
    struct hold **at, *hold;
    long now = 0;

    hs_own_begin();
    for (at = &holds; (hold = *at) != NULL && hold->memory != memory;)
        at = &hold->next;
    if (hold) now = hold->count += by;
    if (hold && now == 0) {
        *at = hold->next;
        free(hold);
    }
    hs_own_end();
    return now;
}

void
hs_memory_hold(VALUE memory)
{
    struct hold *first;

    if (RB_TYPE_P(memory, T_STRING) || count(memory, 1) > 0) return;
    rb_io_buffer_lock(memory); /* or an error: somebody else has it */
    first = malloc(sizeof(*first));
    if (!first) {
        rb_io_buffer_unlock(memory);
        rb_memerror();
    }
    hs_own_begin();
    *first = (struct hold){.memory = memory, .count = 1, .next = holds};
    holds = first;
    hs_own_end();
}

void
hs_memory_let_go(VALUE memory)
{
    if (RB_TYPE_P(memory, T_STRING) || count(memory, -1) > 0) return;
    rb_io_buffer_unlock(memory);
}

void
hs_memory_forget(VALUE memory)
{
    (void)count(memory, -1);
}
