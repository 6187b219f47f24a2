/*
 * Makes chosen system calls of a process fail, come up short or dawdle. Loaded by LD_PRELOAD; ordered
 * about through the file named by FAULTS, which faults.rb maps to the same layout and fills in.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { SENDFILE, FILL, DRAIN, PREAD, SENDMSG, PREADV2, CALLS };
enum action { PASS, FAIL, SHORTEN, END_OF_FILE, DAWDLE_BEFORE, DAWDLE_AFTER };
enum { JOURNAL = 4096 };

struct rule {
    int32_t action;
    int32_t value; /* errno, bytes or milliseconds */
    int32_t skip;  /* this many calls pass first */
    int32_t times; /* fires at most so often; negative: always */
    _Atomic int32_t seen;
    _Atomic int32_t fired;
};

struct entry {
    int32_t call;
    int32_t flags;
    int64_t result; /* negative: errno */
};

struct control {
    struct rule rules[CALLS];
    _Atomic int32_t entries;
    int32_t padding;
    struct entry journal[JOURNAL];
};

static struct control *control;

__attribute__((constructor)) static void
open_control(void)
{
    const char *path = getenv("FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map;

    if (fd < 0) abort();
    map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    control = map;
    close(fd);
}

/* Until a point in time, because Ruby's wake-up signal may come often meanwhile. */
static void
dawdle(int32_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        continue;
}

static const struct rule *
fires(enum call call)
{
    struct rule *rule = &control->rules[call];
    int32_t seen = atomic_fetch_add(&rule->seen, 1);

    if (rule->action == PASS || seen < rule->skip) return NULL;
    if (rule->times >= 0 && seen >= rule->skip + rule->times) return NULL;
    atomic_fetch_add(&rule->fired, 1);
    return rule;
}

static ssize_t
noted(enum call call, int flags, ssize_t result)
{
    int err = errno;
    int32_t at = atomic_fetch_add(&control->entries, 1);

    if (at < JOURNAL) {
        control->journal[at] =
            (struct entry){.call = call, .flags = flags, .result = result < 0 ? -err : result};
    }
    errno = err;
    return result;
}

/* The call itself is `real`, which uses `length`. */
#define WITH_FAULTS(which, flags, real)                                                            \
    do {                                                                                           \
        const struct rule *rule = fires(which);                                                    \
        ssize_t result;                                                                            \
        int err;                                                                                   \
                                                                                                   \
        if (rule && rule->action == FAIL) {                                                        \
            errno = rule->value;                                                                   \
            return noted(which, flags, -1);                                                        \
        }                                                                                          \
        if (rule && rule->action == END_OF_FILE) return noted(which, flags, 0);                    \
        if (rule && rule->action == SHORTEN && length > (size_t)rule->value)                       \
            length = (size_t)rule->value;                                                          \
        if (rule && rule->action == DAWDLE_BEFORE) dawdle(rule->value);                            \
        result = (real);                                                                           \
        err = errno;                                                                               \
        if (rule && rule->action == DAWDLE_AFTER) dawdle(rule->value);                             \
        errno = err;                                                                               \
        return noted(which, flags, result);                                                        \
    } while (0)

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The same message with no more than `length` bytes. */
static const struct msghdr *
trim(struct msghdr *trimmed, const struct msghdr *message, size_t length)
{
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        trimmed->msg_iov[i] = message->msg_iov[i];
        if (trimmed->msg_iov[i].iov_len > length) trimmed->msg_iov[i].iov_len = length;
        length -= trimmed->msg_iov[i].iov_len;
    }
    return trimmed;
}

ssize_t
sendfile64(int out, int in, off64_t *offset, size_t length)
{
    WITH_FAULTS(SENDFILE, 0, REAL(sendfile64)(out, in, offset, length));
}

ssize_t
splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags)
{
    WITH_FAULTS(in_offset ? FILL : DRAIN, (int)flags,
                REAL(splice)(in, in_offset, out, out_offset, length, flags));
}

ssize_t
pread64(int fd, void *buffer, size_t length, off64_t offset)
{
    WITH_FAULTS(PREAD, 0, REAL(pread64)(fd, buffer, length, offset));
}

ssize_t
preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
    struct iovec trimmed = iov[0];
    size_t length = trimmed.iov_len;

    if (count != 1) return REAL(preadv64v2)(fd, iov, count, offset, flags);
    WITH_FAULTS(PREADV2, flags,
                (trimmed.iov_len = length, REAL(preadv64v2)(fd, &trimmed, 1, offset, flags)));
}

ssize_t __pread64_chk(int fd, void *buffer, size_t length, off64_t offset, size_t size);

/* What pread becomes where the compiler knows the size of the buffer. */
ssize_t
__pread64_chk(int fd, void *buffer, size_t length, off64_t offset, size_t size)
{
    if (length > size) abort();
    return pread64(fd, buffer, length, offset);
}

/* For the rules it is a sendmsg, too. */
ssize_t
send(int fd, const void *bytes, size_t length, int flags)
{
    WITH_FAULTS(SENDMSG, flags, REAL(send)(fd, bytes, length, flags));
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec iov[2];
    struct msghdr trimmed = *message;
    size_t length = SIZE_MAX;

    if (message->msg_iovlen > 2) return REAL(sendmsg)(fd, message, flags);
    trimmed.msg_iov = iov;
    WITH_FAULTS(SENDMSG, flags, REAL(sendmsg)(fd, trim(&trimmed, message, length), flags));
}
