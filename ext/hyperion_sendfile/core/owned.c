/*
 * Descriptors that a call opens for itself. Who opened one closes it, on every path; but in a child forked meanwhile
 * the thread that would do so does not exist, and there the fork closes it.
 */
#include "sendfile.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct entry {
    bool owned;
    pthread_t by;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* held during a fork, too */
static struct entry *table;                               /* by descriptor */
static int table_size;

/* Without memory for it a descriptor is not known here, and a child keeps it. */
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
        larger[i].owned = false;
    table = larger;
    table_size = size;
    return true;
}

void
hs_own_begin(void)
{
    pthread_mutex_lock(&mutex);
}

void
hs_own(int fd)
{
    if (make_room(fd)) table[fd] = (struct entry){.owned = true, .by = pthread_self()};
}

void
hs_own_end(void)
{
    pthread_mutex_unlock(&mutex);
}

int
hs_own_duplicate(int fd)
{
    int duplicate;

    hs_own_begin();
    duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate >= 0) hs_own(duplicate);
    hs_own_end();
    return duplicate;
}

void
hs_own_close(int fd)
{
    hs_own_begin();
    if (fd < table_size) table[fd].owned = false;
    close(fd);
    hs_own_end();
}

/* The thread that forked may do so in the middle of a call, from a signal handler say, and lives on. */
static void
in_child(void)
{
    for (int fd = 0; fd < table_size; fd++) {
        if (!table[fd].owned || pthread_equal(table[fd].by, pthread_self())) continue;
        table[fd].owned = false;
        close(fd);
    }
    hs_own_end();
}

/* Returns 0, or an errno. */
int
hs_owned_init(void)
{
    return pthread_atfork(hs_own_begin, hs_own_end, in_child);
}
