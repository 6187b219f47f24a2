/*
 * Linux: a file below a folder, as far as nothing has to wait for a disk or a server. openat2(2) with
 * RESOLVE_CACHED (Linux 5.12) refuses names that are not in the kernel's memory, and hs_read_resident bytes.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

static int
open_at(int folder, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve | RESOLVE_CACHED};

    return (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));
}

/* Others may ask a server when a file is opened, which RESOLVE_CACHED does not keep them from. */
static bool
opens_locally(int folder)
{
    struct statfs fs;

    if (fstatfs(folder, &fs) < 0) return false;
    switch ((uint32_t)fs.f_type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC: return true;
    default: return false;
    }
}

/* Opening itself is seen at the other end of a FIFO, and by many a device; naming is not. */
static bool
names_file(int folder, const char *path, uint64_t resolve)
{
    int named = open_at(folder, path, O_PATH, resolve);
    struct stat st;
    bool regular;

    if (named < 0) return false;
    regular = fstat(named, &st) == 0 && S_ISREG(st.st_mode);
    close(named);
    return regular;
}

static int
open_below(const char *root, const char *path, enum hs_links links)
{
    static const uint64_t resolve[] = {
        [HS_LINKS_INSIDE] = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
        [HS_LINKS_FOLLOW] = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
        [HS_LINKS_REFUSE] = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    int folder = open_at(AT_FDCWD, root, O_PATH | O_DIRECTORY, 0);
    int fd = -1;

    if (folder < 0) return -1;
    while (*path == '/')
        path++;
    if (opens_locally(folder) && names_file(folder, path, resolve[links])) {
        fd = open_at(folder, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, resolve[links]);
    }
    close(folder);
    return fd;
}

/* Whether a time fits into 64 bits of nanoseconds. */
static bool
countable(const struct timespec *time)
{
    int64_t seconds = time->tv_sec; /* in which time_t may have 32 bits */

    return seconds > -9000000000 && seconds < 9000000000;
}

static int64_t
nanoseconds(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

bool
hs_open_cached(const char *root, const char *path, enum hs_links links, void *buffer,
               size_t capacity, struct hs_cached_file *file)
{
    int fd = open_below(root, path, links);
    struct stat st;

    if (fd < 0) return false;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !countable(&st.st_mtim) ||
        !countable(&st.st_ctim)) {
        close(fd);
        return false;
    }
    file->fd = fd;
    file->inode = st.st_ino;
    file->size = st.st_size;
    file->mtime_ns = nanoseconds(&st.st_mtim);
    file->ctime_ns = nanoseconds(&st.st_ctim);
    if ((uint64_t)st.st_size <= capacity &&
        (st.st_size == 0 || hs_read_resident(fd, buffer, (size_t)st.st_size, 0) == st.st_size)) {
        close(fd);
        file->fd = -1;
    }
    return true;
}
