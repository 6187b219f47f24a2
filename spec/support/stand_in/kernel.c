/* See kernel.h. */
#include "kernel.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_SIZE = 65536 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stand_in_fate scripted;
static int scripted_times;
static uint64_t state;
static bool idle; /* the last call moved nothing: the next one does, or a test takes for ever */
static uint64_t counters[STAND_IN_COUNTERS];

void
stand_in_script(int err, int64_t after, int times)
{
    pthread_mutex_lock(&mutex);
    scripted = (struct stand_in_fate){.err = err, .after = after};
    scripted_times = times;
    pthread_mutex_unlock(&mutex);
}

void
stand_in_seed(uint64_t seed)
{
    pthread_mutex_lock(&mutex);
    state = seed;
    idle = false;
    pthread_mutex_unlock(&mutex);
}

uint64_t
stand_in_counted(unsigned counter)
{
    uint64_t count;

    pthread_mutex_lock(&mutex);
    count = counters[counter];
    pthread_mutex_unlock(&mutex);
    return count;
}

__attribute__((constructor)) static void
seed_from_environment(void)
{
    const char *seed = getenv("STAND_IN_SEED");

    if (seed) stand_in_seed(strtoull(seed, NULL, 10));
}

/* xorshift64 */
static uint64_t
chance(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static struct stand_in_fate
fate_by_chance(const int *transient)
{
    static const off_t afters[] = {0, 1, 1000, 20000, 65536, INT64_MAX};
    struct stand_in_fate fate = {0};
    size_t kinds = 0;

    if (state == 0 || chance(2) == 0) return fate;
    while (transient[kinds])
        kinds++;
    fate.err = transient[chance(kinds)];
    fate.after = afters[chance(sizeof(afters) / sizeof(*afters))];
    fate.short_head = chance(2);
    if (idle && fate.after == 0) fate.after = 1;
    return fate;
}

struct stand_in_fate
stand_in_next(const int *transient)
{
    struct stand_in_fate fate;

    pthread_mutex_lock(&mutex);
    if (scripted_times > 0) {
        scripted_times--;
        fate = scripted;
        if (scripted.after > 0) scripted.after = 0;
    } else {
        fate = fate_by_chance(transient);
    }
    idle = fate.err && fate.after <= 0;
    counters[STAND_IN_CALLS]++;
    if (fate.err || fate.short_head) counters[STAND_IN_SUFFERED]++;
    pthread_mutex_unlock(&mutex);
    return fate;
}

int
stand_in_check(int fd, int s, off_t offset, int irregular, int gone)
{
    struct stat st;
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    int type;

    if (fstat(fd, &st) < 0) return errno;
    if (!S_ISREG(st.st_mode)) return irregular;
    if (fstat(s, &st) < 0) return errno;
    if (!S_ISSOCK(st.st_mode)) return ENOTSOCK;
    if (getsockopt(s, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof(type)}) < 0) return errno;
    if (type != SOCK_STREAM) return EINVAL;
    if (getpeername(s, (struct sockaddr *)&peer, &size) < 0) return gone;
    return offset < 0 ? EINVAL : 0;
}

static off_t
least(off_t a, off_t b)
{
    return a < b ? a : b;
}

int
stand_in_move(int s, int fd, off_t offset, off_t length, struct iovec head,
              struct stand_in_fate fate, off_t *sent)
{
    char buffer[BUFFER_SIZE];
    off_t left = length > 0 ? length : INT64_MAX; /* of the file */
    off_t limit = fate.err ? fate.after : INT64_MAX;

    if (length == 0) {
        pthread_mutex_lock(&mutex);
        counters[STAND_IN_TO_THE_END]++;
        pthread_mutex_unlock(&mutex);
    }

    while (left > 0) {
        struct iovec iov[2] = {head, {.iov_base = buffer}};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        ssize_t got = pread(fd, buffer, (size_t)least(left, BUFFER_SIZE), offset);
        ssize_t moved;

        if (got <= 0) return got < 0 ? errno : 0; /* a head that is still to go is not sent alone */
        if (limit == 0) return fate.err;
        iov[0].iov_len = (size_t)least((off_t)head.iov_len, limit);
        iov[1].iov_len = (size_t)least(got, limit - (off_t)iov[0].iov_len);
        moved = sendmsg(s, &message, 0);
        if (moved < 0) return errno;

        *sent += moved;
        limit -= moved;
        if ((size_t)moved < head.iov_len) {
            head.iov_base = (char *)head.iov_base + moved;
            head.iov_len -= (size_t)moved;
        } else {
            off_t body = moved - (off_t)head.iov_len;

            head.iov_len = 0;
            offset += body;
            left -= body;
        }
    }
    return 0;
}
