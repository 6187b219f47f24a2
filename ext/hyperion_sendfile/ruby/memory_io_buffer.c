/*
 * Memory as a source: a frozen String, or an IO::Buffer, which is locked so that no other code
 * frees or resizes it meanwhile. A buffer can be locked only once, therefore our holds on it are
 * counted, in a list of our own because a buffer may be frozen.
 */
#include <ruby.h>
#include <ruby/io/buffer.h>

#include "glue.h"

#include <stdlib.h>

/*
 * The holds on a buffer that is locked for us. The list keeps the buffer alive, so that its VALUE
 * belongs to this buffer as long as it is held.
 */
struct hold {
    VALUE memory;
    long count; /* of holders; at 0, the next caller that may call Ruby unlocks it */
    struct hold *next;
};

/*
 * Changed under the lock of owned.c, which a fork takes as well; no Ruby function is called under
 * it.
 */
static struct hold *holds;

const bool hs_memory_has_buffers = true;

static void
mark_holds(void *data)
{
    (void)data;
    for (const struct hold *hold = holds; hold; hold = hold->next)
        rb_gc_mark(hold->memory);
}

static const rb_data_type_t HOLDS = {
    .wrap_struct_name = "Hyperion::Http::Sendfile buffers held",
    .function = {.dmark = mark_holds},
};

void
hs_memory_init(void)
{
    rb_gc_register_mark_object(TypedData_Wrap_Struct(0, &HOLDS, &holds));
}

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

/* Adds a hold (1) or removes one (-1). False: the buffer is not held. */
static bool
count(VALUE memory, long by)
{
    struct hold *hold;

    hs_own_begin();
    for (hold = holds; hold && (hold->memory != memory || hold->count == 0);)
        hold = hold->next;
    if (hold) hold->count += by;
    hs_own_end();
    return hold != NULL;
}

/* Removes a buffer without holders from the list. Qnil: there is none. */
static VALUE
take_unheld(void)
{
    struct hold **at, *hold;
    VALUE memory = Qnil;

    hs_own_begin();
    for (at = &holds; (hold = *at) != NULL && hold->count > 0;)
        at = &hold->next;
    if (hold) {
        memory = hold->memory;
        *at = hold->next;
    }
    hs_own_end();
    free(hold);
    return memory;
}

static void
unlock_unheld(void)
{
    VALUE memory;

    while (!NIL_P(memory = take_unheld()))
        rb_io_buffer_try_unlock(memory);
}

/*
 * Whether memory is a part of another buffer: locking it would not prevent that one from being
 * freed.
 */
static bool
is_slice(VALUE memory)
{
    void *base;
    size_t size;
    enum rb_io_buffer_flags flags = rb_io_buffer_get_bytes(memory, &base, &size);

    return base && !(flags & (RB_IO_BUFFER_EXTERNAL | RB_IO_BUFFER_INTERNAL | RB_IO_BUFFER_MAPPED));
}

static VALUE
copy_of(VALUE slice, off_t *offset, off_t length)
{
    const char *base;
    off_t size = (off_t)hs_memory_bytes(slice, &base);
    VALUE copy;

    if (size < *offset + length) return slice; /* the caller reports that */
    copy = rb_obj_freeze(rb_str_new(base + *offset, (long)length));
    *offset = 0;
    return copy;
}

VALUE
hs_memory_hold(VALUE memory, off_t *offset, off_t length)
{
    struct hold *first;

    if (RB_TYPE_P(memory, T_STRING)) return memory;
    if (is_slice(memory)) memory = copy_of(memory, offset, length);
    unlock_unheld();
    if (RB_TYPE_P(memory, T_STRING) || count(memory, 1)) return memory;
    rb_io_buffer_lock(memory); /* raises if other code has locked it */
    first = malloc(sizeof(*first));
    if (!first) {
        rb_io_buffer_unlock(memory);
        rb_memerror();
    }
    hs_own_begin();
    *first = (struct hold){.memory = memory, .count = 1, .next = holds};
    holds = first;
    hs_own_end();
    return memory;
}

void
hs_memory_let_go(VALUE memory)
{
    if (RB_TYPE_P(memory, T_STRING)) return;
    count(memory, -1);
    unlock_unheld();
}

/*
 * Called by the garbage collector, therefore the buffer is unlocked only when the next one is held.
 */
void
hs_memory_forget(VALUE memory)
{
    count(memory, -1);
}
