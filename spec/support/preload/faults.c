/*
 * Makes chosen system calls of a process fail, come up short or dawdle. Loaded by LD_PRELOAD; ordered
 * about through the file named by FAULTS, which faults.rb maps to the same layout and fills in. What a
 * call suffers depends on nothing but the order and how many calls of its kind there were before.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

enum call {
    SENDFILE,
    FILL,
    DRAIN,
    PREAD,
    SENDMSG,
    PREADV2,
    WRITE,
    POLL,
    PIPE,
    DUP,
    GETFL,
    WIDEN,
    FSTAT,
    QUEUED,
    ADVISE,
    SOCKOPT,
    CALLS
};
enum action { PASS, FAIL, SHORTEN, ZERO, DAWDLE_BEFORE, DAWDLE_AFTER, READY };
enum { JOURNAL = 8192, CHOICES = 10, WATCHED = 4, PIECES = 80 };

/* One of the faults befalls this call, if the dice say so, after `skip` calls and at most `times` on end. */
struct rule {
    int32_t skip;
    int32_t times;  /* negative: always */
    int32_t chance; /* of 1000 */
    int32_t choices;
    uint64_t seed;
    struct {
        int32_t action;
        int32_t value; /* errno, bytes or milliseconds; SHORTEN by 0: to what the dice say */
    } faults[CHOICES];
    _Atomic int32_t seen;
    _Atomic int32_t fired;
};

/* Everything here lies where the Ruby side packs it, which is without padding. */
_Static_assert(sizeof(struct rule) == 24 + 8 * CHOICES + 8, "the layout of faults.rb");

struct entry {
    int32_t call;
    int32_t flags;
    int64_t result; /* negative: errno */
    int32_t action;
    int32_t padding;
};

struct control {
    struct rule rules[CALLS];
    struct {
        uint64_t dev;
        uint64_t ino;
    } watched[WATCHED];
    _Atomic int32_t watching; /* how many of them; with none, no call suffers */
    _Atomic int32_t entries;
    struct entry journal[JOURNAL];
};

struct fate {
    enum call call;
    enum action action;
    int32_t value;
    int32_t flags;
    uint64_t dice;
};

static struct control nobody;
static struct control *control = &nobody; /* other libraries may make calls before it is open */

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

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/*
 * By what a descriptor opens, so that a duplicate suffers as the original does, and files of Ruby's own
 * don't. The reading end of a pipe is the same file as the writing end, and somebody else's.
 */
static bool
is_watched(int fd)
{
    struct stat64 st;

    if (control->watching == 0 || REAL(fstat64)(fd, &st) < 0) return false;
    for (int i = 0; i < control->watching; i++) {
        if (st.st_dev == control->watched[i].dev && st.st_ino == control->watched[i].ino) {
            return !S_ISFIFO(st.st_mode) || (REAL(fcntl64)(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
        }
    }
    return false;
}

static bool
is_pipe(int fd)
{
    struct stat64 st;

    return control->watching > 0 && REAL(fstat64)(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

static uint64_t
mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static struct fate
fate_of(enum call call, int flags)
{
    struct rule *rule = &control->rules[call];
    struct fate fate = {.call = call, .action = PASS, .flags = flags};
    int32_t seen = atomic_fetch_add(&rule->seen, 1);
    int choice;

    if (rule->choices == 0 || seen < rule->skip) return fate;
    if (rule->times >= 0 && seen >= rule->skip + rule->times) return fate;
    fate.dice = mix(rule->seed + (uint64_t)seen);
    if ((int32_t)(fate.dice % 1000) >= rule->chance) return fate;

    choice = (int)((fate.dice >> 16) % (uint64_t)rule->choices);
    fate.action = (enum action)rule->faults[choice].action;
    fate.value = rule->faults[choice].value;
    atomic_fetch_add(&rule->fired, 1);
    return fate;
}

static size_t
shortened(const struct fate *fate, size_t length)
{
    size_t most = (size_t)fate->value;

    if (fate->action != SHORTEN || length == 0) return length;
    if (fate->value == 0)
        most = 1 + (size_t)(fate->dice >> 24) % ((length >> (fate->dice >> 60)) + 1);
    return most < length ? most : length;
}

static int64_t
now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * At most so long, and until nothing is to suffer any more. By the clock, because Ruby's wake-up signal may
 * come often meanwhile.
 */
static void
dawdle(int32_t ms)
{
    static const struct timespec STEP = {.tv_nsec = 2 * 1000 * 1000};
    int64_t until = now_ms() + ms;

    while (control->watching > 0 && now_ms() < until)
        nanosleep(&STEP, NULL);
}

static ssize_t
noted(const struct fate *fate, ssize_t result)
{
    int err = errno;
    int32_t at = atomic_fetch_add(&control->entries, 1);

    if (at < JOURNAL) {
        control->journal[at] = (struct entry){
            .call = fate->call,
            .flags = fate->flags,
            .result = result < 0 ? -err : result,
            .action = fate->action,
        };
    }
    errno = err;
    return result;
}

/* The call itself is `real`, which uses `length`, where the call has one. */
#define SUFFER(which, call_flags, real)                                                            \
    do {                                                                                           \
        struct fate fate = fate_of(which, call_flags);                                             \
        ssize_t result;                                                                            \
        int err;                                                                                   \
                                                                                                   \
        if (fate.action == FAIL) {                                                                 \
            errno = fate.value;                                                                    \
            return noted(&fate, -1);                                                               \
        }                                                                                          \
        if (fate.action == ZERO) return noted(&fate, 0);                                           \
        length = shortened(&fate, length);                                                         \
        if (fate.action == DAWDLE_BEFORE) dawdle(fate.value);                                      \
        result = (real);                                                                           \
        err = errno;                                                                               \
        if (fate.action == DAWDLE_AFTER) dawdle(fate.value);                                       \
        errno = err;                                                                               \
        return noted(&fate, result);                                                               \
    } while (0)

ssize_t
sendfile64(int out, int in, off64_t *offset, size_t length)
{
    if (!is_watched(out)) return REAL(sendfile64)(out, in, offset, length);
    SUFFER(SENDFILE, 0, REAL(sendfile64)(out, in, offset, length));
}

ssize_t
splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags)
{
    if (!is_watched(in_offset ? in : out)) {
        return REAL(splice)(in, in_offset, out, out_offset, length, flags);
    }
    SUFFER(in_offset ? FILL : DRAIN, (int)flags,
           REAL(splice)(in, in_offset, out, out_offset, length, flags));
}

ssize_t
pread64(int fd, void *buffer, size_t length, off64_t offset)
{
    if (!is_watched(fd)) return REAL(pread64)(fd, buffer, length, offset);
    SUFFER(PREAD, 0, REAL(pread64)(fd, buffer, length, offset));
}

ssize_t
preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
    struct iovec trimmed = iov[0];
    size_t length = trimmed.iov_len;

    if (count != 1 || !is_watched(fd)) return REAL(preadv64v2)(fd, iov, count, offset, flags);
    SUFFER(PREADV2, flags,
           (trimmed.iov_len = length, REAL(preadv64v2)(fd, &trimmed, 1, offset, flags)));
}

/* The same pieces, no more than `length` bytes of them. */
static struct iovec *
trim(struct iovec *trimmed, const struct iovec *iov, size_t count, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        trimmed[i] = iov[i];
        if (trimmed[i].iov_len > length) trimmed[i].iov_len = length;
        length -= trimmed[i].iov_len;
    }
    return trimmed;
}

static size_t
total(const struct iovec *iov, size_t count)
{
    size_t length = 0;

    for (size_t i = 0; i < count; i++)
        length += iov[i].iov_len;
    return length;
}

/* For the rules it is a pread. */
ssize_t
preadv64(int fd, const struct iovec *iov, int count, off64_t offset)
{
    struct iovec trimmed[PIECES];
    size_t length = total(iov, (size_t)count);

    if (count > PIECES || !is_watched(fd)) return REAL(preadv64)(fd, iov, count, offset);
    SUFFER(PREAD, 0, REAL(preadv64)(fd, trim(trimmed, iov, (size_t)count, length), count, offset));
}

/* For the rules it is a sendmsg, too. */
ssize_t
send(int fd, const void *bytes, size_t length, int flags)
{
    if (!is_watched(fd)) return REAL(send)(fd, bytes, length, flags);
    SUFFER(SENDMSG, flags, REAL(send)(fd, bytes, length, flags));
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec iov[PIECES];
    struct msghdr trimmed = *message;
    size_t count = message->msg_iovlen;
    size_t length = total(message->msg_iov, count);

    if (count > PIECES || !is_watched(fd)) return REAL(sendmsg)(fd, message, flags);
    trimmed.msg_iov = iov;
    SUFFER(SENDMSG, flags,
           (trim(iov, message->msg_iov, count, length), REAL(sendmsg)(fd, &trimmed, flags)));
}

ssize_t
writev(int fd, const struct iovec *iov, int count)
{
    struct iovec trimmed[PIECES];
    size_t length = total(iov, (size_t)count);

    if (count > PIECES || !is_watched(fd)) return REAL(writev)(fd, iov, count);
    SUFFER(WRITE, 0, REAL(writev)(fd, trim(trimmed, iov, (size_t)count, length), count));
}

ssize_t
write(int fd, const void *buffer, size_t length)
{
    if (!is_watched(fd)) return REAL(write)(fd, buffer, length);
    SUFFER(WRITE, 0, REAL(write)(fd, buffer, length));
}

/* Whether the answer is made up. READY says what the kernel may say, too: that there is room where there is none. */
static bool
made_up(struct fate *fate, struct pollfd *pollfd, nfds_t count, int *answer)
{
    *fate = (struct fate){.call = CALLS};
    if (count != 1 || !(pollfd->events & POLLOUT) || !is_watched(pollfd->fd)) return false;

    *fate = fate_of(POLL, 0);
    if (fate->action == FAIL) errno = fate->value;
    if (fate->action == READY) pollfd->revents = POLLOUT;
    *answer = fate->action == FAIL ? -1 : 1;
    return fate->action == FAIL || fate->action == READY;
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
    struct fate fate;
    int ready;

    if (!made_up(&fate, fds, count, &ready)) ready = REAL(poll)(fds, count, timeout);
    return fate.call == CALLS ? ready : (int)noted(&fate, ready);
}

int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    struct fate fate;
    int ready;

    if (!made_up(&fate, fds, count, &ready)) ready = REAL(ppoll)(fds, count, timeout, mask);
    return fate.call == CALLS ? ready : (int)noted(&fate, ready);
}

int
pipe2(int fds[2], int flags)
{
    size_t length = 0;

    if (control->watching == 0) return REAL(pipe2)(fds, flags);
    SUFFER(PIPE, flags, REAL(pipe2)(fds, flags));
}

/* Of a file's commands, those that the library gives; CALLS for the rest. */
static enum call
command(int fd, int number)
{
    switch (number) {
    case F_DUPFD_CLOEXEC: return is_watched(fd) ? DUP : CALLS;
    case F_GETFL: return is_watched(fd) ? GETFL : CALLS;
    case F_SETPIPE_SZ: return is_pipe(fd) ? WIDEN : CALLS;
    default: return CALLS;
    }
}

int
fcntl64(int fd, int number, ...)
{
    enum call call = command(fd, number);
    size_t length = 0;
    va_list arguments;
    void *argument;

    va_start(arguments, number);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (call == CALLS) return REAL(fcntl64)(fd, number, argument);
    SUFFER(call, number, REAL(fcntl64)(fd, number, argument));
}

int
ioctl(int fd, unsigned long number, ...)
{
    bool asked = number == SIOCOUTQ || number == SIOCOUTQNSD || number == FIONREAD;
    size_t length = 0;
    va_list arguments;
    void *argument;

    va_start(arguments, number);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!asked || !(is_watched(fd) || is_pipe(fd))) return REAL(ioctl)(fd, number, argument);
    SUFFER(QUEUED, (int)number, REAL(ioctl)(fd, number, argument));
}

int
fstat64(int fd, struct stat64 *st)
{
    size_t length = 0;

    if (!is_watched(fd)) return REAL(fstat64)(fd, st);
    SUFFER(FSTAT, 0, REAL(fstat64)(fd, st));
}

/* It returns the errno. */
int
posix_fadvise64(int fd, off64_t offset, off64_t length, int advice)
{
    struct fate fate;

    if (!is_watched(fd)) return REAL(posix_fadvise64)(fd, offset, length, advice);
    fate = fate_of(ADVISE, advice);
    if (fate.action == FAIL) return (int)noted(&fate, fate.value);
    return (int)noted(&fate, REAL(posix_fadvise64)(fd, offset, length, advice));
}

int
getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    size_t length = 0;

    /* Who encrypts is a question that no kernel answers wrongly, and there is no safe answer. */
    if (level == SOL_TLS || !is_watched(fd))
        return REAL(getsockopt)(fd, level, option, value, size);
    SUFFER(SOCKOPT, option, REAL(getsockopt)(fd, level, option, value, size));
}

int
setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    size_t length = 0;

    if (!is_watched(fd)) return REAL(setsockopt)(fd, level, option, value, size);
    SUFFER(SOCKOPT, option, REAL(setsockopt)(fd, level, option, value, size));
}

/* The names of the same calls without large-file macros, as a libruby of 64 bits uses them. */
ssize_t
sendfile(int out, int in, off_t *offset, size_t length)
{
    off64_t at = offset ? *offset : 0;
    ssize_t sent = sendfile64(out, in, offset ? &at : NULL, length);

    if (offset) *offset = (off_t)at;
    return sent;
}

ssize_t
pread(int fd, void *buffer, size_t length, off_t offset)
{
    return pread64(fd, buffer, length, offset);
}

int
fcntl(int fd, int number, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, number);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    return fcntl64(fd, number, argument);
}

int
fstat(int fd, struct stat *st)
{
    size_t length = 0;

    if (!is_watched(fd)) return REAL(fstat)(fd, st);
    SUFFER(FSTAT, 0, REAL(fstat)(fd, st));
}

ssize_t __pread64_chk(int fd, void *buffer, size_t length, off64_t offset, size_t size);

/* What pread becomes where the compiler knows the size of the buffer. */
ssize_t
__pread64_chk(int fd, void *buffer, size_t length, off64_t offset, size_t size)
{
    if (length > size) abort();
    return pread64(fd, buffer, length, offset);
}
