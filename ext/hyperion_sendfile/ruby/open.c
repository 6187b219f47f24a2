/* Opens files for the Rack app. */
#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* A file of up to this size is read at once. */
static const off_t SMALL = 32 * 1024;

/*
 * Not by File.for_fd: an interrupt in it leaves a File behind that closes the descriptor again when
 * it is collected. Nothing here raises once the File has the descriptor.
 */
#ifdef HAVE_RB_IO_OPEN_DESCRIPTOR
static VALUE
file_for(VALUE fd)
{
    return rb_io_ascii8bit_binmode(
        rb_io_open_descriptor(rb_cFile, FIX2INT(fd), FMODE_READABLE, Qnil, Qnil, NULL));
}

#else
static VALUE
file_for(VALUE fd)
{
    VALUE file = rb_obj_alloc(rb_cFile);
    rb_io_t *fptr;

    MakeOpenFile(file, fptr);
    fptr->mode = FMODE_READABLE;
    fptr->fd = FIX2INT(fd);
    rb_update_max_fd(fptr->fd);
    return rb_io_ascii8bit_binmode(file);
}
#endif

/* The facts in found as a Ruby Array: [content or File, inode, size, mtime, ctime, device]. */
static VALUE
to_ruby(VALUE argument)
{
    struct hs_found *found = (struct hs_found *)argument;
    VALUE source;

    rb_thread_check_ints(); /* before a File exists, which only the garbage collector would close */
    if (found->content) {
        source = rb_str_new(found->content, (long)found->size);
    } else {
        source = file_for(INT2FIX(found->fd));
        found->fd = -1;
    }
    return rb_ary_new_from_args(6, source, ULL2NUM(found->inode), OFFT2NUM(found->size),
                                LL2NUM(found->mtime_ns), LL2NUM(found->ctime_ns),
                                ULL2NUM(found->device));
}

static VALUE
release(VALUE argument)
{
    struct hs_found *found = (struct hs_found *)argument;

    free(found->content);
    if (found->fd >= 0) close(found->fd);
    return Qnil;
}

struct opening {
    const char *root;
    const char *path;
    enum hs_links links;
    struct hs_found found;
    int err;
};

static void *
open_without_gvl(void *data)
{
    struct opening *o = data;
    bool opened = hs_open_below(o->root, o->path, o->links, SMALL, NULL, &o->found);

    o->err = opened ? 0 : errno;
    return NULL;
}

static enum hs_links
policy_of(VALUE links)
{
    unsigned policy = NUM2UINT(links);

    if (policy > HS_LINKS_REFUSE) rb_raise(rb_eArgError, "no such policy: %u", policy);
    return policy;
}

/*
 * Native.open_below(root, path, links) -> [content or File, inode, size, mtime, ctime, device], or nil
 *
 * Opens a regular file below root without the GVL, and reads it at the same time if it is small.
 * Times are in ns. nil: the file has to be opened in another way, for whatever reason. links: an
 * enum hs_links.
 */
static VALUE
native_open_below(VALUE self, VALUE root, VALUE path, VALUE links)
{
    struct opening o = {.links = policy_of(links), .err = EINTR};

    (void)self;
    /* Copies, because another thread could change the originals meanwhile. */
    root = rb_str_new_frozen(root);
    path = rb_str_new_frozen(path);
    o.root = StringValueCStr(root);
    o.path = StringValueCStr(path);
    while (o.err == EINTR) {
        rb_nogvl(open_without_gvl, &o, RUBY_UBF_IO, NULL, RB_NOGVL_INTR_FAIL);
        if (o.err == EINTR) rb_thread_check_ints(); /* nothing is open yet */
    }
    RB_GC_GUARD(root);
    RB_GC_GUARD(path);
    return o.err == 0 ? rb_ensure(to_ruby, (VALUE)&o.found, release, (VALUE)&o.found) : Qnil;
}

/*
 * Native.open_known(root, path, links, device, inode, size, mtime, ctime)
 *     -> [content or File, inode, size, mtime, ctime, device], or nil
 *
 * Like open_below, for a file with these known facts. Holds the GVL, because it waits for no disk
 * and no server. nil: it would have to wait, or the name now belongs to another file.
 */
static VALUE
native_open_known(int argc, VALUE *argv, VALUE self)
{
    struct hs_found known = {.fd = -1}, found;
    enum hs_links links;

    (void)self;
    rb_check_arity(argc, 8, 8);
    links = policy_of(argv[2]);
    known.device = NUM2ULL(argv[3]);
    known.inode = NUM2ULL(argv[4]);
    known.size = NUM2OFFT(argv[5]);
    known.mtime_ns = NUM2LL(argv[6]);
    known.ctime_ns = NUM2LL(argv[7]);
    if (!hs_open_below(StringValueCStr(argv[0]), StringValueCStr(argv[1]), links, SMALL, &known,
                       &found)) {
        return Qnil;
    }
    return rb_ensure(to_ruby, (VALUE)&found, release, (VALUE)&found);
}

struct closing {
    VALUE file;
    struct hs_held held;
};

static VALUE
hold(VALUE argument)
{
    struct closing *closing = (struct closing *)argument;

    hs_hold(&closing->held, closing->file);
    return Qnil;
}

static VALUE
let_go(VALUE argument)
{
    hs_release(&((struct closing *)argument)->held);
    return Qnil;
}

static VALUE
close_file(VALUE argument)
{
    return rb_ensure(rb_io_close, ((struct closing *)argument)->file, let_go, argument);
}

/*
 * Native.close(file) -> nil
 *
 * Like IO#close, but IO#close holds the GVL while it closes a file that was opened for reading,
 * which can take long on a file server. Therefore the descriptor is held, and its last holder
 * closes it.
 */
static VALUE
native_close(VALUE self, VALUE file)
{
    struct closing closing = {.file = file, .held = HS_HOLDS_NOTHING};

    (void)self;
    if (hs_closed(file)) return Qnil;
    (void)hs_in_descriptor(file); /* raises if it is closed */
    rb_ensure(hold, (VALUE)&closing, close_file, (VALUE)&closing);
    return Qnil;
}

void
hs_init_open(VALUE mNative)
{
    rb_define_singleton_method(mNative, "close", native_close, 1);
    rb_define_singleton_method(mNative, "open_below", native_open_below, 3);
    rb_define_singleton_method(mNative, "open_known", native_open_known, -1);
}
