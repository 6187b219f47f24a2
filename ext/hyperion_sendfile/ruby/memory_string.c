/* Memory as a source: only a String, for Rubies whose IO::Buffer C code cannot read. */
#include <ruby.h>

#include "glue.h"

const bool hs_memory_has_buffers = false;

size_t
hs_memory_bytes(VALUE memory, const char **base)
{
    *base = RSTRING_PTR(memory);
    return (size_t)RSTRING_LEN(memory);
}

void
hs_memory_init(void)
{
}

VALUE
hs_memory_hold(VALUE memory, off_t *offset, off_t length)
{
    (void)offset;
    (void)length;
    return memory;
}

void
hs_memory_let_go(VALUE memory)
{
    (void)memory;
}

void
hs_memory_forget(VALUE memory)
{
    (void)memory;
}
