/*
 * The contract between the files that use Ruby: the functions that each of them offers to the
 * others. Include Ruby's own headers first.
 */
#ifndef HYPERION_GLUE_H
#define HYPERION_GLUE_H

#include "sendfile.h"

/* arguments.c */
bool hs_closed(VALUE io);
bool hs_flushed(VALUE out);
int hs_out_descriptor(VALUE out);
VALUE hs_in_source(VALUE in); /* the IO or number that in stands for */
int hs_in_descriptor(VALUE source);
int hs_pipe_descriptor(VALUE pipe, const char *name);
off_t hs_bytes(VALUE value, const char *name);
void hs_check_region(off_t offset, off_t length);
VALUE hs_set_head(struct hs_transfer *transfer, VALUE head, char *space, size_t size);
int64_t hs_timeout_ns(VALUE timeout);

/*
 * memory_io_buffer.c or memory_string.c: a frozen String, or an IO::Buffer if
 * hs_memory_has_buffers. hs_memory_bytes: their number and address. While held, they do not move.
 * hs_memory_hold returns the memory to use: a copy of the region, at offset 0, if memory is a
 * slice. hs_memory_forget: for a holder that is garbage.
 */
extern const bool hs_memory_has_buffers;
size_t hs_memory_bytes(VALUE memory, const char **base);
void hs_memory_init(void);
VALUE hs_memory_hold(VALUE memory, off_t *offset, off_t length);
void hs_memory_let_go(VALUE memory);
void hs_memory_forget(VALUE memory);

/* data_frames.c */
struct hs_frames *hs_frames_of(VALUE frames);
struct hs_frames *hs_frames_to_send(VALUE frames);
void hs_init_frames(VALUE mNative);

/* open.c */
void hs_init_open(VALUE mNative);

/* native.c */
void hs_init_native(VALUE mSendfile);

/* hyperion_sendfile.c */
VALUE hs_status_symbol(enum hs_status status);
bool hs_splice_marked_unsupported(void);

/*
 * held.c: while held, a descriptor stays open, whatever other threads close. hs_hold: holds an open
 * IO or a number; false: no descriptor is left for a duplicate. Ensure hs_release before calling
 * it; it may raise interrupts of this thread. hs_release_early: the part of it that does not need
 * the GVL.
 */
struct hs_held {
    int fd; /* -1: nothing is held */
    struct hs_owned duplicate;
    VALUE io; /* the IO whose close is put off */
    bool settles;
    uintptr_t thread;
    struct hs_held *next;
};
#define HS_HOLDS_NOTHING ((struct hs_held){.fd = -1, .duplicate = HS_OWNS_NOTHING, .io = Qnil})
bool hs_hold(struct hs_held *held, VALUE io);
void hs_release_early(struct hs_held *held);
void hs_release(struct hs_held *held);
void hs_held_init(void);

/*
 * gvl.c: runs a transfer for Ruby, and repeats it after interrupts. The caller fills in what to
 * send and how; gvl.c looks up, guards and releases the descriptors.
 */
enum { HS_IN, HS_PIPE_R, HS_PIPE_W, HS_OUT, HS_DESCRIPTORS };
struct hs_call {
    struct hs_transfer transfer;
    VALUE out;
    VALUE in;     /* nil: a head alone */
    VALUE pipe_r; /* nil: none */
    VALUE pipe_w;
    bool one_ractor;    /* then rb_thread_alone counts all threads */
    bool region;        /* hs_region guards the destination */
    bool keep_gvl;      /* as long as nothing blocks: see hs_buffered_resident */
    int yields;         /* region bytes (1) and head bytes (2), even if an exception passes */
    size_t head_before; /* bytes of the head that earlier calls sent */
    struct hs_held held[HS_DESCRIPTORS];
};
struct hs_call hs_call_on(VALUE out, VALUE in);
void hs_call_run(struct hs_call *call);
void hs_raise_if_failed(const struct hs_call *call);
bool hs_wait_without_gvl(VALUE io, short events, VALUE timeout);
bool hs_read_in(VALUE in, off_t offset, off_t length); /* reads into the page cache */
void hs_gvl_init(void);

/* Like hs_sigpipe_hold, but around Ruby code, which may release the GVL. */
void hs_hold_sigpipe(struct hs_sigpipe *sigpipe);

/*
 * A read of a source without the GVL, repeated if it ends by EINTR or did not begin. If no
 * descriptor is left for a duplicate, it keeps the GVL.
 */
struct hs_read {
    int fd; /* to read from */
    ssize_t got;
    int err;
    void (*run)(struct hs_read *read);
};
void hs_read_source(struct hs_read *read, VALUE source);

/* Runs func(data) without the GVL. May raise interrupts of this thread, before or after func. */
void hs_without_gvl(void (*func)(void *), void *data);

/* As rb_ensure, but `ensured` may yield to the block of the caller. */
VALUE hs_ensure(VALUE (*func)(VALUE), VALUE argument, VALUE (*ensured)(VALUE), VALUE for_ensured);

/* records.c */
void hs_records_init(void);
enum hs_status hs_send_records(VALUE ssl, VALUE io, VALUE in, off_t position, off_t end, VALUE head,
                               size_t head_sent, VALUE buffer, const struct hs_frames *frames,
                               bool report);

/*
 * region_number.c, region_io.c or region_nogvl.c: like hs_without_gvl, on behalf of the descriptor
 * fd of io, which may be a number. hs_region_guards: whether IO#close in another thread wakes us,
 * and waits until we have left.
 */
void hs_region(void (*func)(void *), void *data, VALUE io, int fd);
bool hs_region_guards(VALUE io);

#endif
