/*
 * Keeps descriptors open while the GVL is released. Otherwise another thread could close an IO
 * then, and by the time of the system call its number could be reused. Therefore the close of an IO
 * is put off: while IO#autoclose? is false, IO#close leaves the descriptor open, and this file
 * closes it at the end. A duplicate is avoided, because closing one would drop the POSIX record
 * locks that the process has on the file (fcntl(2)). Only a number without an IO, or with an IO
 * that never closes it, is duplicated.
 */
#include <ruby.h>
#include <ruby/debug.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include "glue.h"

#include <pthread.h>
#include <stdlib.h>

enum { LISTS = 64, TRIES = 16 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* also held during a fork */
static struct hs_held *lists[LISTS];                      /* index: the descriptor */
static ID id_autoclose_p, id_set_autoclose;

/* IO objects in a forked child that were held by threads which the child does not have. */
struct left {
    VALUE io;
    int fd;
};
static struct left *left;
static size_t left_count, left_capacity;

static uintptr_t
running(void)
{
    return ruby_native_thread_p() ? (uintptr_t)rb_thread_current() : 0;
}

static struct hs_held *
find(VALUE io, int fd)
{
    struct hs_held *held = lists[fd % LISTS];

    while (held && held->io != io)
        held = held->next;
    return held;
}

/* Returns whether another call holds the same IO. */
static bool
enlist(struct hs_held *held)
{
    struct hs_held **list = &lists[held->fd % LISTS];
    bool shared;

    pthread_mutex_lock(&mutex);
    shared = find(held->io, held->fd) != NULL;
    held->next = *list;
    *list = held;
    pthread_mutex_unlock(&mutex);
    return shared;
}

/* Returns whether this was the last hold on the IO: that one decides about its close. */
static bool
delist(const struct hs_held *held)
{
    struct hs_held **at = &lists[held->fd % LISTS], *other = NULL;

    pthread_mutex_lock(&mutex);
    while (*at != held)
        at = &(*at)->next;
    *at = held->next;
    if (held->settles) other = find(held->io, held->fd);
    if (other) other->settles = true;
    pthread_mutex_unlock(&mutex);
    return held->settles && !other;
}

static void *
close_owned(void *owned)
{
    hs_own_close(owned);
    return NULL;
}

static VALUE
check_interrupts(VALUE nothing)
{
    rb_thread_check_ints();
    return nothing;
}

/* Without the GVL, because a close may wait. Interrupts of this thread are raised after it. */
static void
close_without_gvl(struct hs_owned *owned)
{
    int state = 0;

    for (int i = 0; owned->fd >= 0 && i < TRIES; i++) {
        int raised = 0;

        rb_nogvl(close_owned, owned, NULL, NULL, RB_NOGVL_INTR_FAIL);
        if (owned->fd >= 0) rb_protect(check_interrupts, Qnil, &raised);
        if (raised) state = raised;
    }
    hs_own_close(owned);
    if (state) rb_jump_tag(state);
}

static bool
has(VALUE io, int fd)
{
    return !hs_closed(io) && rb_io_descriptor(io) == fd;
}

/*
 * Lets the IO close its descriptor again. If the IO was closed meanwhile, closes the descriptor
 * that it left open.
 */
static void
settle(VALUE io, int fd)
{
    struct hs_owned late = HS_OWNS_NOTHING;
    VALUE yes = Qtrue;

    if (!has(io, fd)) {
        hs_own_begin();
        (void)hs_own(&late, fd, running());
        hs_own_end();
    }
    if (!hs_closed(io)) rb_funcallv(io, id_set_autoclose, 1, &yes);
    close_without_gvl(&late);
}

/* False: the IO never closes its number, so that other code may close it. */
static bool
put_off_close(struct hs_held *held, VALUE io)
{
    VALUE no = Qfalse;
    bool shared;

    held->settles = RTEST(rb_funcallv(io, id_autoclose_p, 0, NULL));
    held->io = io;
    held->fd = rb_io_descriptor(io);
    held->thread = running();
    shared = enlist(held);
    if (held->settles) rb_funcallv(io, id_set_autoclose, 1, &no);
    if (held->settles || shared) return true;
    delist(held);
    held->fd = -1;
    held->io = Qnil;
    return false;
}

/*
 * Holds the descriptor of io, an open IO or a number, in held->fd until hs_release; ensure
 * hs_release before calling this. False: no descriptor is left for a duplicate.
 */
bool
hs_hold(struct hs_held *held, VALUE io)
{
    bool is_io = RB_TYPE_P(io, T_FILE);

    if (held->fd >= 0) return true;
    if (is_io && put_off_close(held, io)) {
        if (has(io, held->fd)) return true;
        hs_release(held); /* the IO was closed, but left its descriptor open for us */
        rb_raise(rb_eIOError, "closed stream");
    }
    if (!hs_own_duplicate(&held->duplicate, is_io ? rb_io_descriptor(io) : FIX2INT(io),
                          running())) {
        return false;
    }
    held->fd = held->duplicate.fd;
    return true;
}

/* The part of a release that may wait and does not need the GVL. */
void
hs_release_early(struct hs_held *held)
{
    if (held->duplicate.fd < 0) return;
    hs_own_close(&held->duplicate);
    held->fd = -1;
}

/* Raises only interrupts of this thread, after everything is released. */
void
hs_release(struct hs_held *held)
{
    VALUE io = held->io;
    int fd = held->fd;
    bool settles = fd >= 0 && !NIL_P(io) && delist(held);

    held->io = Qnil;
    held->fd = -1;
    if (settles) settle(io, fd);
    close_without_gvl(&held->duplicate);
    RB_GC_GUARD(io);
}

static void
settle_left(void *nothing)
{
    (void)nothing;
    while (left_count > 0) {
        struct left last = left[--left_count];

        settle(last.io, last.fd);
        RB_GC_GUARD(last.io);
    }
}

/* Schedules the rest for the next moment at which Ruby code may run. */
static void
settle_left_soon(void)
{
#ifdef HAVE_RB_POSTPONED_JOB_PREREGISTER
    rb_postponed_job_trigger(rb_postponed_job_preregister(0, settle_left, NULL));
#else
    rb_postponed_job_register_one(0, settle_left, NULL);
#endif
}

/* If there is no memory for the entry, the child keeps the descriptor. */
static void
leave(VALUE io, int fd)
{
    if (left_count == left_capacity) {
        size_t capacity = left_capacity > 0 ? 2 * left_capacity : 16;
        struct left *larger = realloc(left, capacity * sizeof(*left));

        if (!larger) return;
        left = larger;
        left_capacity = capacity;
    }
    left[left_count++] = (struct left){.io = io, .fd = fd};
}

static void
before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void
after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

/* Only the thread that forked exists in the child. */
static void
in_child(void)
{
    uintptr_t survivor = running();

    for (int i = 0; i < LISTS; i++) {
        struct hs_held *gone = NULL;

        for (struct hs_held **at = &lists[i], *held; (held = *at) != NULL;) {
            if (held->thread == survivor) {
                at = &held->next;
                continue;
            }
            *at = held->next;
            held->next = gone;
            gone = held;
        }
        for (; gone; gone = gone->next) {
            struct hs_held *other = find(gone->io, gone->fd);

            if (!gone->settles) continue;
            if (other) other->settles = true;
            if (!other) leave(gone->io, gone->fd);
        }
    }
    after_fork();
    if (left_count > 0 && survivor != 0) settle_left_soon();
}

static void
mark_left(void *nothing)
{
    (void)nothing;
    for (size_t i = 0; i < left_count; i++)
        rb_gc_mark(left[i].io);
}

static const rb_data_type_t LEFT = {
    .wrap_struct_name = "Hyperion::Http::Sendfile files of a parent",
    .function = {.dmark = mark_left},
    .flags = RUBY_TYPED_FREE_IMMEDIATELY,
};

void
hs_held_init(void)
{
    int err;

    id_autoclose_p = rb_intern("autoclose?");
    id_set_autoclose = rb_intern("autoclose=");
    rb_gc_register_mark_object(TypedData_Wrap_Struct(rb_cObject, &LEFT, lists));
    err = hs_owned_init(running);
    if (err == 0) err = pthread_atfork(before_fork, after_fork, in_child);
    if (err != 0) rb_syserr_fail(err, "pthread_atfork");
}
