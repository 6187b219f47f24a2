/*
 * Linux: opens a file below a folder by openat2(2), which checks symbolic links during the lookup.
 * With RESOLVE_CACHED (Linux 5.12), it refuses a lookup that would wait for a disk or a server.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const uint64_t RESOLVE[] = {
    [HS_LINKS_INSIDE] = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    [HS_LINKS_FOLLOW] = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    [HS_LINKS_REFUSE] = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
};

static int
open_at(int folder, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};

    return (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));
}

/* Whether a time fits into 64 bits of nanoseconds. */
static bool
countable(const struct statx_timestamp *time)
{
    return time->tv_sec > -9000000000 && time->tv_sec < 9000000000;
}

static int64_t
nanoseconds(const struct statx_timestamp *time)
{
    return time->tv_sec * 1000000000 + time->tv_nsec;
}

/*
 * Reads the facts of a regular file; with at_once, only those that are known without asking a
 * server.
 */
static bool
describe(int fd, bool at_once, struct hs_found *found)
{
    struct statx st;
    int flags = AT_EMPTY_PATH | (at_once ? AT_STATX_DONT_SYNC : 0);

    if (statx(fd, "", flags, STATX_BASIC_STATS, &st) < 0 || !S_ISREG(st.stx_mode) ||
        !countable(&st.stx_mtime) || !countable(&st.stx_ctime)) {
        return false;
    }
    found->device = makedev(st.stx_dev_major, st.stx_dev_minor);
    found->inode = st.stx_ino;
    found->size = (off_t)st.stx_size;
    found->mtime_ns = nanoseconds(&st.stx_mtime);
    found->ctime_ns = nanoseconds(&st.stx_ctime);
    return true;
}

static bool
same(const struct hs_found *a, const struct hs_found *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

/*
 * Opening a file has effects: the other end of a FIFO, many devices and a scanner notice it. O_PATH
 * has none. Opening may also ask a server, which RESOLVE_CACHED does not prevent.
 */
static bool
names_file(int folder, const char *path, uint64_t resolve, const struct hs_found *known)
{
    int named = open_at(folder, path, O_PATH, resolve);
    struct hs_found found;
    bool regular;

    if (named < 0) return false;
    regular = describe(named, known != NULL, &found) &&
              (known ? same(&found, known) : hs_is_local(named));
    close(named);
    errno = EINVAL;
    return regular;
}

static int
open_below(const char *root, const char *path, enum hs_links links, const struct hs_found *known)
{
    uint64_t cached = known ? RESOLVE_CACHED : 0;
    uint64_t resolve = RESOLVE[links] | cached;
    int folder = open_at(AT_FDCWD, root, O_PATH | O_DIRECTORY, cached);
    int fd = -1, err;

    if (folder < 0) return -1;
    while (*path == '/')
        path++;
    if (names_file(folder, path, resolve, known)) {
        fd = open_at(folder, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, resolve);
    }
    err = errno;
    close(folder);
    errno = err;
    return fd;
}

/* Reads the content of a small file; with at_once, only if that does not wait. */
static void
read_whole(struct hs_found *found, bool at_once)
{
    size_t size = (size_t)found->size;
    ssize_t got = 0;
    char *content = malloc(size + 1);

    if (content && size > 0) {
        got = at_once ? hs_read_resident(found->fd, content, size, 0)
                      : pread(found->fd, content, size, 0);
    }
    if (content && got == found->size) {
        found->content = content;
        close(found->fd);
        found->fd = -1;
    } else {
        free(content);
    }
}

bool
hs_open_below(const char *root, const char *path, enum hs_links links, off_t small,
              const struct hs_found *known, struct hs_found *found)
{
    int fd = open_below(root, path, links, known);

    *found = (struct hs_found){.fd = fd};
    if (fd < 0) return false;
    if (!describe(fd, known != NULL, found)) {
        close(fd);
        errno = EINVAL;
        return false;
    }
    if (found->size <= small) read_whole(found, known != NULL);
    return true;
}
