/*
 * TLS in userspace: passes a file, record by record, to the Ruby object that encrypts. Each record
 * is read into one String, which OpenSSL encrypts in place, without a copy or an object in between.
 * Everything runs under the GVL, because OpenSSL does; only waits for a disk release it.
 */
#include <ruby.h>
#include <ruby/io.h>

#include "frames.h"
#include "glue.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* The plaintext of one record, which is what OpenSSL accepts per call (RFC 8446, 5.1). */
static const long RECORD = 16 * 1024;

/* Room for the rest of a record, and for the next frame, which is longer than a record. */
static const long RECORD_AND_FRAME = 2 * 16 * 1024 + HS_FRAME_PREFIX;

/*
 * The limits of one call before other fibers get their turn, because encryption keeps a core busy.
 */
static const off_t STEP = 256 * 1024;
static const int64_t STEP_NS = 2 * 1000 * 1000;

static ID id_syswrite_nonblock;
static VALUE eEAGAIN;

struct step {
    VALUE ssl;
    VALUE io; /* below ssl */
    VALUE in;
    const struct hs_frames *frames; /* NULL: no frames; else position and end are on the wire */
    bool report;                    /* stop at frame boundaries */
    VALUE buffer;                   /* plaintext to be sent next */
    off_t position;                 /* in the file, of the byte after the buffer */
    off_t end;
    const char *head; /* comes before that byte, and is not yet in the buffer */
    size_t head_left;
    off_t sent; /* of head and region together */
    enum hs_status status;
    bool offered;  /* OpenSSL was given data */
    bool in_doubt; /* and may have begun to send data that it did not accept */
    bool corked;
    struct hs_sigpipe sigpipe;
};

struct piece {
    struct hs_read read; /* must be the first member */
    char *to;
    size_t length;
    off_t position;
};

static void
read_piece(struct hs_read *read)
{
    const struct piece *piece = (const struct piece *)read;

    read->got = pread(read->fd, piece->to, piece->length, piece->position);
    read->err = read->got < 0 ? errno : 0;
}

/*
 * Data in the page cache is read under the GVL, because releasing it would cost a time slice beside
 * a busy thread. -1: errno.
 */
static ssize_t
read_at(VALUE in, char *to, size_t length, off_t position)
{
    struct piece piece = {
        .read = {.run = read_piece}, .to = to, .length = length, .position = position};
    ssize_t got = hs_read_resident(hs_in_descriptor(in), to, length, position);

    if (got > 0) return got;
    hs_read_source(&piece.read, in);
    errno = piece.read.err;
    return piece.read.got;
}

static bool
all_read(const struct step *s)
{
    return s->head_left == 0 && s->position == s->end;
}

static ssize_t
read_piece_at(const void *in, const struct iovec *pieces, int count, off_t offset)
{
    (void)count;
    return read_at(*(const VALUE *)in, pieces->iov_base, pieces->iov_len, offset);
}

/* A file without offsets has to be streamed. */
static void
read_failed(struct step *s, int err)
{
    if (err != ESPIPE) rb_syserr_fail(err, NULL);
    s->status = HS_UNSUPPORTED;
}

/*
 * Frames are longer than records. The next frame is laid out after the rest of the previous one, so
 * that every record but the last is full. OpenSSL accepts one record at a time.
 */
static bool
fill_with_frames(struct step *s)
{
    long held = RSTRING_LEN(s->buffer);
    long head = RECORD_AND_FRAME - held;
    ssize_t laid = 0;
    int err = 0;

    rb_str_modify_expand(s->buffer, RECORD_AND_FRAME - held);
    if ((size_t)head > s->head_left) head = (long)s->head_left;
    memcpy(RSTRING_PTR(s->buffer) + held, s->head, (size_t)head);
    s->head += head;
    s->head_left -= (size_t)head;
    rb_str_set_len(s->buffer, held += head);
    if (held < RECORD && s->position < s->end) {
        int fd = NIL_P(s->in) ? -1 : hs_in_descriptor(s->in);

        laid = hs_frames_lay_out(s->frames, fd, s->position, RSTRING_PTR(s->buffer) + held,
                                 (size_t)(RECORD_AND_FRAME - held), read_piece_at, &s->in);
        err = errno;
        if (laid > 0) {
            s->position += laid;
            rb_str_set_len(s->buffer, held + laid);
        }
    }
    if (RSTRING_LEN(s->buffer) > 0) return true;
    if (laid < 0) {
        read_failed(s, err);
    } else {
        s->status = all_read(s) ? HS_DONE : HS_EOF;
    }
    return false;
}

/* Makes the next record as long as possible. False: there is no data; see the status. */
static bool
fill(struct step *s)
{
    size_t have = s->head_left < (size_t)RECORD ? s->head_left : (size_t)RECORD;
    off_t position = s->position;

    rb_str_modify_expand(s->buffer, RECORD);
    memcpy(RSTRING_PTR(s->buffer), s->head, have);
    s->head += have;
    s->head_left -= have;
    while (have < (size_t)RECORD && position < s->end) {
        size_t room = (size_t)RECORD - have;
        off_t left = s->end - position;
        ssize_t got = read_at(s->in, RSTRING_PTR(s->buffer) + have,
                              left < (off_t)room ? (size_t)left : room, position);

        if (got < 0) {
            read_failed(s, errno);
            return false;
        }
        if (got == 0) break;
        have += (size_t)got;
        position += got;
    }
    s->position = position;
    rb_str_set_len(s->buffer, (long)have);
    if (have == 0) s->status = all_read(s) ? HS_DONE : HS_EOF;
    return have > 0;
}

static VALUE
write_record(VALUE argument)
{
    struct step *s = (struct step *)argument;

    return rb_funcallv(s->ssl, id_syswrite_nonblock, 1, &s->buffer);
}

static VALUE
would_block(VALUE argument, VALUE error)
{
    struct step *s = (struct step *)argument;

    s->status = RTEST(rb_obj_is_kind_of(error, rb_mWaitReadable)) ? HS_WANT_READ : HS_EAGAIN;
    return INT2FIX(0);
}

/*
 * Passes the buffer to OpenSSL. If another thread has left an error in OpenSSL's queue, as happens
 * with M:N threads, a full socket raises a bare EAGAIN. Data that OpenSSL does not accept now may
 * be partly encrypted, and must be passed again. The String is frozen during the call: some
 * versions of the gem openssl would otherwise take its memory over, and the next read would have to
 * allocate and copy.
 */
static void
offer(struct step *s)
{
    long length = RSTRING_LEN(s->buffer);
    long taken;

    s->offered = s->in_doubt = true;
    RB_FL_SET_RAW(s->buffer, RUBY_FL_FREEZE);
    taken = NUM2LONG(rb_rescue2(write_record, (VALUE)s, would_block, (VALUE)s, rb_mWaitWritable,
                                rb_mWaitReadable, eEAGAIN, (VALUE)0));
    RB_FL_UNSET_RAW(s->buffer, RUBY_FL_FREEZE);
    if (taken < 0 || taken > length)
        rb_raise(rb_eIOError, "out: took %ld of %ld bytes", taken, length);

    s->sent += taken;
    s->in_doubt = s->status != HS_PARTIAL;
    memmove(RSTRING_PTR(s->buffer), RSTRING_PTR(s->buffer) + taken, (size_t)(length - taken));
    rb_str_set_len(s->buffer, length - taken);
}

static bool
ready(struct step *s)
{
    long held = RSTRING_LEN(s->buffer);

    if (!s->frames) return held > 0 || fill(s);
    return held >= (s->report ? 1 : RECORD) || fill_with_frames(s);
}

/* Whether the step ends here, so that other fibers get their turn, or the caller gets a report. */
static bool
step_ends(const struct step *s, int64_t deadline)
{
    return s->sent >= STEP || hs_now_ns() >= deadline || (s->report && RSTRING_LEN(s->buffer) == 0);
}

static VALUE
run(VALUE argument)
{
    struct step *s = (struct step *)argument;
    int64_t deadline = hs_now_ns() + STEP_NS;

    do {
        if (!ready(s)) break;
        if (!s->corked && !all_read(s)) s->corked = hs_cork(hs_out_descriptor(s->io));
        offer(s);
        if (RSTRING_LEN(s->buffer) == 0 && all_read(s)) s->status = HS_DONE;
    } while (s->status == HS_PARTIAL && !step_ends(s, deadline));
    return Qnil;
}

/* Called however the step ends: removes the cork and the signal mask, and yields the counts. */
static VALUE
finish(VALUE argument)
{
    struct step *s = (struct step *)argument;

    RB_FL_UNSET_RAW(s->buffer, RUBY_FL_FREEZE);
    /* The IO may have been closed for writing. */
    if (s->corked && !hs_closed(s->io)) hs_uncork(rb_io_descriptor(s->io));
    hs_sigpipe_release(&s->sigpipe);
    if (s->offered) rb_yield_values(2, OFFT2NUM(s->sent), s->in_doubt ? Qtrue : Qfalse);
    return Qnil;
}

/*
 * Sends as much as it can within a step: the rest of the head, then [position, end) of the file.
 * The buffer holds the first of these bytes; no other code uses it, and it is kept from one step to
 * the next. Unless nothing was tried, the block is called with the bytes sent, and with whether
 * more may have been sent, before the call is left in any way.
 */
enum hs_status
hs_send_records(VALUE ssl, VALUE io, VALUE in, off_t position, off_t end, VALUE head,
                size_t head_sent, VALUE buffer, const struct hs_frames *frames, bool report)
{
    size_t head_left = NIL_P(head) ? 0 : (size_t)RSTRING_LEN(head) - head_sent;
    size_t held = (size_t)RSTRING_LEN(buffer);
    size_t head_held = held < head_left ? held : head_left;
    struct step step = {
        .ssl = ssl,
        .io = io,
        .in = in,
        .frames = frames,
        .report = frames && report,
        .buffer = buffer,
        .position = position + (off_t)(held - head_held),
        .end = end,
        .head = NIL_P(head) ? "" : RSTRING_PTR(head) + head_sent + head_held,
        .head_left = head_left - head_held,
        .status = HS_PARTIAL,
    };

    hs_hold_sigpipe(&step.sigpipe);
    hs_ensure(run, (VALUE)&step, finish, (VALUE)&step);
    RB_GC_GUARD(head);
    return step.status;
}

void
hs_records_init(void)
{
    id_syswrite_nonblock = rb_intern("syswrite_nonblock");
    eEAGAIN = rb_path2class("Errno::EAGAIN");
}
