/*
 * Linux: tells which parts of a file are in the page cache. preadv2(2) with RWF_NOWAIT tells if the
 * file system supports it. If it does not (overlayfs, squashfs, erofs), mincore(2) tells, for a
 * mapping whose pages are never touched.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef EXFAT_SUPER_MAGIC
#define EXFAT_SUPER_MAGIC 0x2011BAB0
#endif
#ifndef EROFS_SUPER_MAGIC_V1
#define EROFS_SUPER_MAGIC_V1 0xE0F5E1E2
#endif
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/*
 * The page cache gains and loses runs of pages, therefore one byte in each stretch of this many
 * bytes is probed.
 */
static const off_t PROBE_EVERY = 128 * 1024;

/* The most pages per call of mincore(2). */
enum { PAGES = 1024 };

/* An offset at which no file has data in the page cache. */
static const off_t FAR = (off_t)1 << 43;

/*
 * Devices whose file systems read data in the page cache without asking a server first, unlike FUSE
 * and NFS. 0: a free entry. The type of a file system is remembered, because statfs(2) may ask its
 * server, and is therefore called only by threads that may wait.
 */
static _Atomic uint64_t local_devices[16];

ssize_t
hs_read_resident(int fd, void *buffer, size_t size, off_t offset)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    ssize_t got = preadv2(fd, &iov, 1, offset, RWF_NOWAIT);

    if (got > 0) return got;
    errno = EOPNOTSUPP;
    return -1;
}

enum answer { THERE, MISSING, REFUSED };

static enum answer
ask(int fd, off_t offset)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};

    if (preadv2(fd, &iov, 1, offset, RWF_NOWAIT) >= 0) return THERE; /* also the end of the file */
    return errno == EAGAIN || errno == EINTR ? MISSING : REFUSED;
}

/* Whether all pages of this stretch are in the page cache. start is a multiple of the page size. */
static bool
pages_there(int fd, off_t start, size_t length, size_t page)
{
    unsigned char there[PAGES];
    /* PROT_NONE, so that not even mlockall(2) reads a page of it. */
    void *map = mmap(NULL, length, PROT_NONE, MAP_SHARED, fd, start);
    size_t pages = (length + page - 1) / page;
    bool all;

    if (map == MAP_FAILED) return false;
    all = mincore(map, length, there) == 0;
    for (size_t i = 0; all && i < pages; i++)
        all = there[i] & 1;
    munmap(map, length);
    return all;
}

/*
 * For a file that this process neither owns nor may write, mincore(2) reports all pages as present
 * (since Linux 5.2), even one that cannot be. Probing such a page shows whether the kernel tells
 * the truth.
 */
static bool
tells_truth(int fd, size_t page)
{
    unsigned char there = 1;
    void *map = mmap(NULL, page, PROT_NONE, MAP_SHARED, fd, FAR);

    if (map == MAP_FAILED) return false;
    if (mincore(map, page, &there) < 0) there = 1;
    munmap(map, page);
    return !(there & 1);
}

/* Reads the facts of the file that are known without asking a server. */
static bool
describe(int fd, uint64_t *device, off_t *size)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, &st) < 0 ||
        !S_ISREG(st.stx_mode)) {
        return false;
    }
    *device = makedev(st.stx_dev_major, st.stx_dev_minor);
    *size = (off_t)st.stx_size;
    return true;
}

static bool
is_local(uint64_t device)
{
    for (size_t i = 0; i < sizeof(local_devices) / sizeof(*local_devices); i++) {
        uint64_t known = atomic_load(&local_devices[i]);

        if (known == device) return true;
        if (known == 0) return false;
    }
    return false;
}

static void
remember(uint64_t device)
{
    for (size_t i = 0; i < sizeof(local_devices) / sizeof(*local_devices); i++) {
        uint64_t none = 0;

        if (atomic_compare_exchange_strong(&local_devices[i], &none, device) || none == device) {
            return;
        }
    }
}

/* Files of tmpfs are in memory, also their holes, for which mincore(2) reports no pages. */
static bool
is_memory(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == TMPFS_MAGIC;
}

static bool
mapped_resident(int fd, off_t offset, off_t length)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    off_t at = offset - offset % (off_t)page;
    off_t end = offset + length;
    uint64_t device;
    off_t size;

    if (!describe(fd, &device, &size) || !is_local(device)) return false;
    if (is_memory(fd)) return true;
    if (end > size) end = size;
    if (at < end && !tells_truth(fd, page)) return false;
    while (at < end) {
        off_t window = (off_t)(PAGES * page);

        if (window > end - at) window = end - at;
        if (!pages_there(fd, at, (size_t)window, page)) return false;
        at += window;
    }
    return true;
}

bool
hs_resident(int fd, off_t offset, off_t length)
{
    if (length <= 0) return true;
    for (off_t at = 0; at < length; at += PROBE_EVERY) {
        enum answer answer = ask(fd, offset + at);

        if (answer == REFUSED) return mapped_resident(fd, offset + at, length - at);
        if (answer == MISSING) return false;
    }
    return ask(fd, offset + length - 1) == THERE;
}

bool
hs_is_local(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) return false;
    switch ((uint32_t)fs.f_type) {
    case EXT4_SUPER_MAGIC: /* and ext2 and ext3 */
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case SQUASHFS_MAGIC:
    case EROFS_SUPER_MAGIC_V1:
    case ISOFS_SUPER_MAGIC:
    case MSDOS_SUPER_MAGIC:
    case EXFAT_SUPER_MAGIC: return true;
    default: return false;
    }
}

bool
hs_tells_resident(int fd, off_t offset, bool may_wait)
{
    uint64_t device;
    off_t size;

    if (ask(fd, offset) != REFUSED) return true;
    if (!describe(fd, &device, &size)) return false;
    if (may_wait && !is_local(device) && hs_is_local(fd)) remember(device);
    return is_local(device);
}
