/*
 * How much of a file is in the page cache, for cold.rb.
 */
#include <ruby.h> /* first: it asks for the GNU names */

#include <sys/mman.h>
#include <unistd.h>

/* Bench.resident(fd, length) => bytes of it that are in the page cache, by mincore(2) */
static VALUE
bench_resident(VALUE self, VALUE fd, VALUE length)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t end = NUM2SIZET(length);
    const size_t pages = (end + page - 1) / page;
    void *mapping = mmap(NULL, end, PROT_READ, MAP_SHARED, NUM2INT(fd), 0);
    size_t resident = 0;

    if (mapping == MAP_FAILED) rb_sys_fail("mmap");
    unsigned char *there = xmalloc(pages);
    const int failed = mincore(mapping, end, there);
    munmap(mapping, end);
    for (size_t i = 0; !failed && i < pages; i++) {
        resident += there[i] & 1;
    }
    xfree(there);
    if (failed) rb_sys_fail("mincore");
    return SIZET2NUM(resident * page);
}

void
Init_page_cache(void)
{
    rb_define_singleton_method(rb_define_module("Bench"), "resident", bench_resident, 2);
}
