/*
 * The contract between the files that know Ruby: values, the GVL, what each of them offers the others.
 * Include Ruby's own headers before it.
 */
#ifndef HYPERION_GLUE_H
#define HYPERION_GLUE_H

#include "sendfile.h"

/* arguments.c */
bool hs_closed(VALUE io);
bool hs_flushed(VALUE out);
int hs_out_descriptor(VALUE out);
VALUE hs_in_source(VALUE in); /* the IO, or the number, that in stands for */
int hs_in_descriptor(VALUE source);
int hs_pipe_descriptor(VALUE pipe, const char *name);
off_t hs_bytes(VALUE value, const char *name);
void hs_check_region(off_t offset, off_t length);
VALUE hs_set_head(struct hs_transfer *transfer, VALUE head, char *space, size_t size);
int64_t hs_timeout_ns(VALUE timeout);

/*
 * memory_io_buffer.c or memory_string.c: a String, frozen, or an IO::Buffer where it has_buffers. _bytes: how
 * many there are, from base on. While held, they stay where they are: what _hold returns, which is a copy of the
 * region, at offset 0, where the memory is part of another's. _forget: of a holder that is garbage.
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
 * held.c: while held, a descriptor is what it was, whatever other threads close. _hold: of an open IO, or a number;
 * false when there is none to be had for a duplicate. _release is to be ensured before; it may raise what interrupts this
 * thread. _release_early: as much of it as needs no GVL.
 */
struct hs_held {
    int fd; /* -1: nothing is held */
    struct hs_owned duplicate;
    VALUE io; /* or the IO whose close is put off */
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
 * gvl.c: a transfer on behalf of Ruby, until it is more than interrupted. Fill in what to send and
 * how; descriptors are looked up, watched and released here.
 */
enum { HS_IN, HS_PIPE_R, HS_PIPE_W, HS_OUT, HS_DESCRIPTORS };
struct hs_call {
    struct hs_transfer transfer;
    VALUE out;
    VALUE in;     /* nil: a head alone */
    VALUE pipe_r; /* nil: none */
    VALUE pipe_w;
    bool one_ractor;    /* so that rb_thread_alone speaks of all threads */
    bool region;        /* guards the destination */
    bool keep_gvl;      /* for as long as nothing makes it wait: see hs_buffered_resident */
    int yields;         /* region bytes (1) and head bytes (2), also when an exception passes */
    size_t head_before; /* bytes of the head that earlier calls sent */
    struct hs_held held[HS_DESCRIPTORS];
};
struct hs_call hs_call_on(VALUE out, VALUE in);
void hs_call_run(struct hs_call *call);
void hs_raise_if_failed(const struct hs_call *call);
bool hs_wait_without_gvl(VALUE io, short events, VALUE timeout);
bool hs_read_in(VALUE in, off_t offset, off_t length); /* into the page cache */
void hs_gvl_init(void);

/* As hs_sigpipe_hold, around Ruby code, which may give the GVL up. */
void hs_hold_sigpipe(struct hs_sigpipe *sigpipe);

/*
 * A read of a source, without the GVL: again where it ends by EINTR, or has not begun. Where there is no descriptor to
 * be had, the GVL is kept.
 */
struct hs_read {
    int fd; /* to read by */
    ssize_t got;
    int err;
    void (*run)(struct hs_read *read);
};
void hs_read_source(struct hs_read *read, VALUE source);

/* func(data) without the GVL. May raise what interrupts this thread, before or after func. */
void hs_without_gvl(void (*func)(void *), void *data);

/* records.c */
void hs_records_init(void);
enum hs_status hs_send_records(VALUE ssl, VALUE io, VALUE in, off_t position, off_t end, VALUE head,
                               size_t head_sent, VALUE buffer, const struct hs_frames *frames,
                               bool report);

/*
 * region_number.c, region_io.c or region_nogvl.c: as hs_without_gvl, on behalf of the descriptor fd of io, which may be a
 * number. _guards: IO#close elsewhere wakes us, and waits until we are out.
 */
void hs_region(void (*func)(void *), void *data, VALUE io, int fd);
bool hs_region_guards(VALUE io);

#endif
