/*
 * Descriptors that this gem opens for itself. The thread that opened one closes it on every path.
 * In a child that is forked meanwhile, that thread does not exist, and the fork handler closes it.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct entry {
    uint64_t serial; /* 0: not one of ours */
    uintptr_t by;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* also held during a fork */
static struct entry *table;                               /* index: the descriptor */
static int table_size;
static uint64_t serials;
static atomic_int closing; /* entries already removed, whose close(2) may not have begun */
static uintptr_t (*running)(void);

static bool
make_room(int fd)
{
    int size = table_size > 0 ? table_size : 64;
    struct entry *larger;

    if (fd < table_size) return true;
    while (size <= fd)
        size *= 2;
    larger = realloc(table, (size_t)size * sizeof(*table));
    if (!larger) return false;
    for (int i = table_size; i < size; i++)
        larger[i].serial = 0;
    table = larger;
    table_size = size;
    return true;
}

void
hs_own_begin(void)
{
    pthread_mutex_lock(&mutex);
}

/* If there is no memory to register it, fd is closed. */
bool
hs_own(struct hs_owned *owned, int fd, uintptr_t by)
{
    if (!make_room(fd)) {
        close(fd);
        errno = ENOMEM;
        return false;
    }
    *owned = (struct hs_owned){.fd = fd, .serial = ++serials};
    table[fd] = (struct entry){.serial = owned->serial, .by = by};
    return true;
}

void
hs_own_end(void)
{
    pthread_mutex_unlock(&mutex);
}

bool
hs_own_duplicate(struct hs_owned *owned, int fd, uintptr_t by)
{
    int duplicate;
    bool done;

    hs_own_begin();
    duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    done = duplicate >= 0 && hs_own(owned, duplicate, by);
    hs_own_end();
    return done;
}

/*
 * The lock is not held during the close, which may wait for a server or for a peer. The number is
 * free as soon as the close begins. A descriptor that the fork handler has closed in this process
 * is not closed again, because its number may have been reused.
 */
void
hs_own_close(struct hs_owned *owned)
{
    bool ours;

    if (owned->fd < 0) return;
    hs_own_begin();
    ours = owned->serial != 0 && table[owned->fd].serial == owned->serial;
    if (ours) {
        table[owned->fd].serial = 0;
        atomic_fetch_add(&closing, 1);
    }
    hs_own_end();
    if (ours) {
        close(owned->fd);
        atomic_fetch_sub(&closing, 1);
    }
    *owned = HS_OWNS_NOTHING;
}

/*
 * A thread may be about to close a descriptor that is no longer registered, which a child would
 * then keep. It gets a moment to do so, but no longer, because a close that waits has already
 * released the number.
 */
static void
before_fork(void)
{
    struct timespec moment = {.tv_nsec = 1000 * 1000};

    hs_own_begin();
    for (int i = 0; i < 20 && atomic_load(&closing) > 0; i++)
        nanosleep(&moment, NULL);
}

/*
 * The forking thread lives on in the child. It may even fork in the middle of a call, for example
 * from a signal handler; therefore its own descriptors are kept.
 */
static void
in_child(void)
{
    uintptr_t survivor = running();

    for (int fd = 0; fd < table_size; fd++) {
        if (table[fd].serial == 0 || table[fd].by == survivor) continue;
        table[fd].serial = 0;
        close(fd);
    }
    atomic_store(&closing, 0);
    hs_own_end();
}

/* `thread` returns the running thread, to compare with `by`. Returns 0 or an errno. */
int
hs_owned_init(uintptr_t (*thread)(void))
{
    running = thread;
    return pthread_atfork(before_fork, hs_own_end, in_child);
}
