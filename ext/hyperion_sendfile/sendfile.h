/*
 * The internal contract: one struct for a transfer, one function per platform.
 *
 * Nothing declared here knows Ruby: it may run without the GVL and must not call into the interpreter.
 * ruby/glue.h declares what does. hyperion_sendfile.c gives the order in which to read.
 */
#ifndef HYPERION_SENDFILE_H
#define HYPERION_SENDFILE_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

_Static_assert(sizeof(off_t) == sizeof(int64_t), "offsets of large files");

/* Bodies up to this many bytes are the business of copy_small. */
#define HS_SMALL_FILE_THRESHOLD 65536

enum hs_status {
    HS_DONE = 0,    /* all of the region is out */
    HS_PARTIAL,     /* some of it is */
    HS_EAGAIN,      /* none: the socket is full */
    HS_EOF,         /* the file ends before the region does */
    HS_UNSUPPORTED, /* the kernel won't by this method; take another from where the socket stands */
    HS_TIMEOUT,     /* no byte moved for the time given */
    HS_WANT_READ,   /* none: TLS has to hear from the peer first */
    HS_INTERRUPTED, /* Ruby wants this thread; nothing is lost, run it again */
    HS_FAILED,      /* see err */
};

/*
 * What one attempt moved, and the errno it ended with: both can be set, since BSD and Darwin
 * report bytes sent and an error in one call, and a head may be out before the body fails.
 * No error and no byte is the end of the file.
 */
struct hs_moved {
    size_t head;
    off_t body;
    int err;
    bool refused; /* err is the kernel's "not by this call", see hs_is_refusal */
};

struct hs_transfer;
struct hs_frames;
struct iovec;

/* A way of moving bytes: one attempt, from where the counts stand. */
typedef struct hs_moved hs_method(const struct hs_transfer *);

struct hs_transfer {
    /* What to send: head[head_sent..head_length), then [offset + sent, offset + length) of in_fd. */
    int out_fd;
    int in_fd;
    off_t offset;
    off_t length;
    const char *head;
    size_t head_length;
    struct hs_frames *frames; /* or the like of these, see frames.h; NULL: the region as it is */

    /* How: one attempt moves at most what is left of these. */
    hs_method *method;
    int pipe_r; /* hs_splice only */
    int pipe_w;

    /* When to come back: at once if !wait, else when done, failed, or timeout_ns without a byte. */
    bool wait;
    bool report;        /* come back after every attempt that moved something */
    bool ktls;          /* out_fd encrypts: look for a hang-up before every attempt */
    int64_t timeout_ns; /* negative: none */
    int64_t slice_ns;   /* come back with HS_INTERRUPTED after so long; negative: never */

    /* Whether Ruby wants the thread that runs it: asked between two attempts. */
    bool (*wanted)(uintptr_t thread);
    uintptr_t thread;

    /* What came of it. Counts only grow, also over several runs of one transfer. */
    off_t sent;
    size_t head_sent;
    int64_t deadline_ns; /* of the byte that is due next; 0: not yet begun */
    int interruptions;   /* in a row, of the system call itself */
    off_t chunk; /* of the next system call, by how long the last one took; 0: nothing is known */
    bool stands_in; /* the method is one that never waits, for sendfile */
    int queued;     /* what the kernel had yet to deliver at the last look; -1: not known */
    enum hs_status status;
    int err;
};

/* transfer.c */
void hs_transfer_run(struct hs_transfer *transfer);
off_t hs_next_chunk(const struct hs_transfer *transfer);
bool hs_wanted(const struct hs_transfer *transfer); /* for methods that make many system calls */
bool hs_is_refusal(int err);
int64_t hs_now_ns(void);

/* buffered.c: the method that works between any two descriptors, by way of memory. */
hs_method hs_buffered;
hs_method hs_buffered_resident; /* refuses what would wait for a disk */
hs_method hs_head_alone;        /* held back to join its region */
/* A write that neither waits, whatever the descriptor's mode, nor raises SIGPIPE. */
ssize_t hs_send_without_waiting(int fd, struct iovec *pieces, int count, bool more);
struct hs_moved hs_send_head(const struct hs_transfer *transfer, bool more);
struct hs_moved hs_split(const struct hs_transfer *transfer, off_t sent, int err);
bool hs_never_blocks(int fd);

/*
 * switch.c: whether sendfile and splice may be used. _method: the given one of these, or where it is switched
 * off one that refuses everything.
 */
void hs_kernel_copies_set(bool on);
bool hs_kernel_copies(void);
hs_method *hs_kernel_method(hs_method *method);

/* small.c */
hs_method *hs_small_method(const struct hs_transfer *transfer);

/*
 * resident_preadv2.c or resident_none.c: the page cache. _read_: as pread, but -1 (EOPNOTSUPP) for what is not there,
 * or not known to be. hs_resident: whether all of it is known to be there. hs_tells_resident: whether that can be known
 * of this file. hs_is_local: whether its file system opens and closes it, and reads what is in the page cache, without
 * asking a server. None of them waits, but hs_is_local, and hs_tells_resident where it may.
 */
ssize_t hs_read_resident(int fd, void *buffer, size_t size, off_t offset);
bool hs_resident(int fd, off_t offset, off_t length);
bool hs_tells_resident(int fd, off_t offset, bool may_wait);
bool hs_is_local(int fd);

/*
 * open_openat2.c or open_none.c: the regular file that path names below root. It is read whole if it has at most
 * `small` bytes: then content is the caller's to free, and fd is -1; else fd is open for reading. This may wait for
 * a disk or a scanner. But if known says which file is expected, it waits for nothing but a scanner. false: another way
 * has to be taken, for whatever reason; errno is EINTR if that is all. links: as the Rack app Files has it.
 */
enum hs_links { HS_LINKS_INSIDE, HS_LINKS_FOLLOW, HS_LINKS_REFUSE };
struct hs_found {
    int fd;
    char *content;
    uint64_t device;
    uint64_t inode;
    off_t size;
    int64_t mtime_ns, ctime_ns;
};
bool hs_open_below(const char *root, const char *path, enum hs_links links, off_t small,
                   const struct hs_found *known, struct hs_found *found);

/* stats.c: these are ours, the others mean what lib/ says that they mean. */
enum {
    HS_SMALL_RESPONSES,
    HS_SMALL_BYTES,
    HS_WAITS,
    HS_SENDFILE_RESPONSES = 6,
    HS_SENDFILE_BYTES,
    HS_COUNTERS = 32
};
void hs_count(unsigned counter, uint64_t by);
uint64_t hs_counted(unsigned counter);

/*
 * owned.c: descriptors of ours, each closed by hs_own_close, or in a child that another thread than `by` forks meanwhile.
 * They are opened, and owned at once, between _begin and _end. _duplicate: as dup(2), all in one. false: errno.
 */
struct hs_owned {
    int fd;
    uint64_t serial;
};
#define HS_OWNS_NOTHING ((struct hs_owned){.fd = -1})
void hs_own_begin(void);
bool hs_own(struct hs_owned *owned, int fd, uintptr_t by);
void hs_own_end(void);
bool hs_own_duplicate(struct hs_owned *owned, int fd, uintptr_t by);
void hs_own_close(struct hs_owned *owned);
int hs_owned_init(uintptr_t (*thread)(void));

/* splice.c or splice_none.c */
hs_method hs_splice;
hs_method hs_splice_by_own_pipe;
bool hs_splice_compiled(void);
bool hs_pipe_open(struct hs_owned pipe[2], uintptr_t by);
void hs_pipe_widen(int fd); /* to hold much between fill and drain */

/*
 * ktls.c or ktls_none.c: for a descriptor on which the kernel encrypts. _gone: the errno of a connection
 * that has ended, or 0. _close_record: lets go of what was sent with MSG_MORE.
 */
bool hs_ktls_compiled(void);
bool hs_ktls_sends(int fd);
int hs_ktls_gone(int fd, bool *writable);
void hs_ktls_close_record(int fd);

/*
 * sigpipe.c: while held, SIGPIPE is not delivered to this native thread; what was raised meanwhile is gone at the
 * release. Held only where the program does not ignore it.
 */
struct hs_sigpipe {
    bool held;
    bool was_pending;
    sigset_t before;
};
void hs_sigpipe_init(void);
bool hs_sigpipe_does_harm(void);
void hs_sigpipe_hold(struct hs_sigpipe *sigpipe);
void hs_sigpipe_release(const struct hs_sigpipe *sigpipe);

/* discard_sigtimedwait.c or discard_sigwait.c: takes back the SIGPIPE pending for this thread. */
void hs_discard_sigpipe(void);

/*
 * wait.c: until fd has one of the events, at most timeout_ns (negative: for ever), or with a negative fd just for the
 * time. 1: it has; 0: timed out; -1: errno, EINTR when a signal came.
 */
int hs_wait(int fd, short events, int64_t timeout_ns);

/*
 * alarm_timer.c or alarm_none.c: ends a system call of this native thread that waits, after_ns from when it is set and
 * then again and again. Between _begin and _end the thread gives no other thread its place.
 */
struct hs_alarm {
    bool there;
    void *timer;
};
void hs_alarm_begin(struct hs_alarm *alarm);
void hs_alarm_set(const struct hs_alarm *alarm, int64_t after_ns);
void hs_alarm_end(const struct hs_alarm *alarm);

/* One of os_linux.c, os_darwin.c, os_freebsd.c, os_portable.c */
hs_method hs_os_sendfile;
const char *hs_os_tag(void);
bool hs_os_supported(void);
enum hs_advice { HS_ADVICE_OK, HS_ADVICE_ERROR, HS_ADVICE_NOOP };
enum hs_advice hs_os_advise_sequential(int fd, off_t offset, off_t length);

/*
 * queue.c or queue_none.c. hs_queued: how many bytes the kernel has taken and not delivered; -1: it
 * doesn't say. hs_push: sends what TCP holds back, by Nagle's algorithm, or with more by MSG_MORE.
 */
int hs_queued(int fd);
void hs_push(int fd, bool more);

/* nagle.c */
bool hs_nagle_off(int fd);
void hs_nagle_on(int fd);

/* cork.c or cork_none.c: whole segments only, until uncorked. false: it can't be had, or somebody else has it. */
bool hs_cork(int fd);
void hs_uncork(int fd);

#endif
