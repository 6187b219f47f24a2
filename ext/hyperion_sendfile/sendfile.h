/*
 * The internal contract: one struct for a transfer, one function per platform.
 *
 * Nothing declared here uses Ruby: it may run without the GVL and must not call the interpreter.
 * ruby/glue.h declares the functions that use Ruby. hyperion_sendfile.c lists the files in reading
 * order.
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

/* copy_small sends bodies of up to this many bytes. */
#define HS_SMALL_FILE_THRESHOLD 65536

enum hs_status {
    HS_DONE = 0,    /* all of the region was sent */
    HS_PARTIAL,     /* some of it was */
    HS_EAGAIN,      /* none: the socket is full */
    HS_EOF,         /* the file ends before the region does */
    HS_UNSUPPORTED, /* this method is refused; continue by another one */
    HS_TIMEOUT,     /* no byte moved within the timeout */
    HS_WANT_READ,   /* none: TLS has to hear from the peer first */
    HS_INTERRUPTED, /* Ruby needs this thread; nothing is lost, run it again */
    HS_FAILED,      /* see err */
};

/*
 * The bytes that one attempt moved, and the errno that ended it. Both can be set, because BSD and
 * Darwin report bytes and an error in one call, and because the body may fail after the head was
 * sent. Neither an error nor a byte means end of file.
 */
struct hs_moved {
    size_t head;
    off_t body;
    int err;
    bool refused; /* err means "not by this system call", see hs_is_refusal */
};

struct hs_transfer;
struct hs_frames;
struct iovec;

/* A way of moving bytes: one attempt, beginning at the current counts. */
typedef struct hs_moved hs_method(const struct hs_transfer *);

struct hs_transfer {
    /* What to send: head[head_sent..head_length), then [offset + sent, offset + length) of in_fd. */
    int out_fd;
    int in_fd;
    off_t offset;
    off_t length;
    const char *head;
    size_t head_length;
    struct hs_frames *frames; /* send the region as frames, see frames.h; NULL: unframed */

    /* How: one attempt sends at most the rest of head and region. */
    hs_method *method;
    int pipe_r; /* hs_splice only */
    int pipe_w;

    /*
     * When to return: after one attempt if !wait; else when done, failed, or after timeout_ns
     * without a byte.
     */
    bool wait;
    bool report;        /* return after every attempt that moved bytes */
    bool ktls;          /* the kernel encrypts: check for a hang-up before every attempt */
    int64_t timeout_ns; /* negative: none */
    int64_t slice_ns;   /* return HS_INTERRUPTED after this time; negative: never */

    /* Whether Ruby needs the thread that runs this; called between two attempts. */
    bool (*wanted)(uintptr_t thread);
    uintptr_t thread;

    /* Results. Counts only grow, also over several runs of one transfer. */
    off_t sent;
    size_t head_sent;
    int64_t deadline_ns; /* when the next byte is due; 0: not yet begun */
    int interruptions;   /* consecutive ones of the system call itself */
    int doublings;       /* of the time for the next byte of a slow source */
    off_t chunk;    /* limit of the next system call, by the time of the last one; 0: unknown */
    bool stands_in; /* method replaces sendfile, because it never waits */
    int queued;     /* undelivered bytes in the kernel at the last check; -1: not known */
    enum hs_status status;
    int err;
};

/* transfer.c */
void hs_transfer_run(struct hs_transfer *transfer);
off_t hs_next_chunk(const struct hs_transfer *transfer);
bool hs_wanted(const struct hs_transfer *transfer); /* for methods with many system calls */
bool hs_is_refusal(int err);
int64_t hs_now_ns(void);

/* buffered.c: the method that works between any two descriptors, through memory. */
hs_method hs_buffered;
hs_method hs_buffered_resident; /* refuses data that is not in the page cache */
hs_method hs_head_alone;        /* held back until the region joins it */
/* A write that neither waits, in any mode of the descriptor, nor raises SIGPIPE. */
ssize_t hs_send_without_waiting(int fd, struct iovec *pieces, int count, bool more);
struct hs_moved hs_send_head(const struct hs_transfer *transfer, bool more);
struct hs_moved hs_split(const struct hs_transfer *transfer, off_t sent, int err);
bool hs_never_blocks(int fd);

/*
 * switch.c: whether sendfile and splice may be used. hs_kernel_method returns the given method, or,
 * if they are switched off, one that refuses everything.
 */
void hs_kernel_copies_set(bool on);
bool hs_kernel_copies(void);
hs_method *hs_kernel_method(hs_method *method);

/* small.c */
hs_method *hs_small_method(const struct hs_transfer *transfer);

/*
 * resident_preadv2.c or resident_none.c: the page cache. hs_read_resident: like pread, but -1
 * (EOPNOTSUPP) for data that is not known to be in the page cache. hs_resident: whether all of the
 * region is known to be there. hs_tells_resident: whether that can be known for this file.
 * hs_is_local: whether its file system opens and closes the file, and reads data in the page cache,
 * without asking a server. Only hs_is_local may wait, and hs_tells_resident if may_wait.
 */
ssize_t hs_read_resident(int fd, void *buffer, size_t size, off_t offset);
bool hs_resident(int fd, off_t offset, off_t length);
bool hs_tells_resident(int fd, off_t offset, bool may_wait);
bool hs_is_local(int fd);

/*
 * open_openat2.c or open_none.c: opens the regular file that path names below root. A file of at
 * most `small` bytes is read whole: the caller then frees content, and fd is -1. Otherwise fd is
 * open for reading. This may wait for a disk or a scanner; if `known` describes the expected file,
 * only for a scanner. false: the caller has to open the file in another way, for whatever reason,
 * unless errno is EINTR. links: as for the Rack app Files.
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

/* stats.c: C code uses these counters; lib/ defines the meaning of the others. */
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
 * owned.c: descriptors of ours. hs_own_close closes each of them; in a child that a thread other
 * than `by` forks meanwhile, the fork does. They are opened and registered between hs_own_begin and
 * hs_own_end. hs_own_duplicate does all that with dup(2). false: see errno.
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
void hs_pipe_widen(int fd); /* so that it holds more between fill and drain */

/*
 * ktls.c or ktls_none.c: for a descriptor on which the kernel encrypts. hs_ktls_gone: the errno of
 * a connection that has ended, or 0. hs_ktls_close_record: flushes bytes that were sent with
 * MSG_MORE.
 */
bool hs_ktls_compiled(void);
bool hs_ktls_sends(int fd);
int hs_ktls_gone(int fd, bool *writable);
void hs_ktls_close_record(int fd);

/*
 * sigpipe.c: while held, SIGPIPE is not delivered to this native thread; the release discards one
 * that was raised meanwhile. It is held only if the program does not ignore SIGPIPE.
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
 * wait.c: waits until fd has one of the events, at most timeout_ns (negative: for ever). With a
 * negative fd, it only waits for that time. 1: an event came; 0: timed out; -1: errno, EINTR for a
 * signal.
 */
int hs_wait(int fd, short events, int64_t timeout_ns);

/*
 * alarm_timer.c or alarm_none.c: interrupts a blocked system call of this native thread, after_ns
 * after it is set, and then repeatedly. Between hs_alarm_begin and hs_alarm_end, the code must stay
 * on this native thread.
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
 * queue.c or queue_none.c. hs_queued: how many bytes the kernel has accepted but not delivered; -1:
 * unknown. hs_push: flushes bytes that TCP holds back by Nagle's algorithm, and, with more, by
 * MSG_MORE.
 */
int hs_queued(int fd);
void hs_push(int fd, bool more);

/* nagle.c */
bool hs_nagle_off(int fd);
void hs_nagle_on(int fd);

/*
 * cork.c or cork_none.c: TCP sends only whole segments until uncorked. false: not possible, or
 * already corked.
 */
bool hs_cork(int fd);
void hs_uncork(int fd);

#endif
