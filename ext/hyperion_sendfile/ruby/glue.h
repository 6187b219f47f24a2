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
 * gvl.c: a transfer on behalf of Ruby, until it is more than interrupted. Fill in what to send and
 * how; descriptors are looked up, watched and released here.
 */
struct hs_call {
    struct hs_transfer transfer;
    VALUE out;
    VALUE in;           /* nil: a head alone */
    bool keep_gvl;      /* for as long as nothing makes it wait: see hs_buffered_resident */
    int yields;         /* region bytes (1) and head bytes (2), also when an exception passes */
    size_t head_before; /* bytes of the head that earlier calls sent */
    int owned_out_fd;   /* -1, or a duplicate that the call closes */
    int owned_in_fd;
};
struct hs_call hs_call_on(VALUE out, VALUE in);
void hs_call_run(struct hs_call *call);
void hs_raise_if_failed(const struct hs_call *call);
bool hs_wait_without_gvl(VALUE io, short events, VALUE timeout);
bool hs_read_in(VALUE in, off_t offset, off_t length); /* into the page cache */

/* records.c */
void hs_records_init(void);
enum hs_status hs_send_records(VALUE ssl, VALUE io, VALUE in, off_t position, off_t end, VALUE head,
                               size_t head_sent, VALUE buffer, const struct hs_frames *frames,
                               bool report);

/* region_io.c or region_nogvl.c: func(data) without the GVL, on behalf of this descriptor. */
void hs_region(void (*func)(void *), void *data, int fd);
extern const bool hs_region_guards_fd; /* IO#close elsewhere wakes us, and waits until we are out */

#endif
