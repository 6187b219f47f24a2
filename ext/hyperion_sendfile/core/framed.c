/*
 * The methods of a transfer of DATA frames. What they move counts in bytes on the wire, and the head that
 * goes ahead apart from them.
 */
#include "frames.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* What one write takes of memory, a frame being two stretches or three. */
enum { STRETCHES = 6 * 10 };

/* So far apart are the boundaries at which a caller hears of memory, however slow the reader is. */
static const off_t MILESTONE = 256 * 1024;

/* A head up to here is copied in front of the first frame's prefix. */
enum { HEAD_ROOM = 4 * 1024 };

static off_t
position(const struct hs_transfer *t)
{
    return t->offset + t->sent;
}

/* What is laid out at once: whoever hears of boundaries hears of one in each buffer. */
static size_t
room(const struct hs_transfer *t)
{
    const struct hs_frames *f = t->frames;
    off_t left = hs_frames_milestone(f, position(t), (off_t)f->capacity) - position(t);

    return t->report && left < (off_t)f->capacity ? (size_t)left : f->capacity;
}

/* Makes the buffer hold what comes next. 1: it does; 0: the file has ended; -1: errno. */
static int
fill(const struct hs_transfer *t)
{
    struct hs_frames *f = t->frames;
    off_t wire = position(t);
    ssize_t laid;

    if (f->first < f->last && f->at == wire) return 1;
    f->first = f->last = 0;
    laid = hs_frames_lay_out(f, t->in_fd, wire, f->buffer, room(t), hs_read_vector, &t->in_fd);
    if (laid <= 0) return (int)laid;
    f->last = (size_t)laid;
    f->at = wire;
    return 1;
}

static int
add_head(const struct hs_transfer *t, struct iovec *pieces)
{
    size_t left = t->head_length - t->head_sent;

    if (left == 0) return 0;
    pieces[0] =
        (struct iovec){.iov_base = (void *)(uintptr_t)(t->head + t->head_sent), .iov_len = left};
    return 1;
}

/* Tells what the socket took of the pieces. It stopped by itself where that is not all. */
static struct hs_moved
send_all(const struct hs_transfer *t, struct iovec *pieces, int count, size_t asked)
{
    ssize_t sent = hs_send_without_waiting(t->out_fd, pieces, count, false);

    if (sent < 0) return (struct hs_moved){.err = errno};
    return hs_split(t, sent, (size_t)sent < asked ? EAGAIN : 0);
}

/*
 * What the socket does not take stays in the buffer, and is not read again: of a frame whose beginning is
 * out, the end is at hand, whatever becomes of the file.
 */
struct hs_moved
hs_frames_buffered(const struct hs_transfer *t)
{
    struct hs_frames *f = t->frames;
    struct iovec pieces[2];
    struct hs_moved moved;
    int count = add_head(t, pieces);
    size_t held;
    int filled;

    if (t->sent == t->length) return hs_send_head(t, false);
    filled = fill(t);
    if (filled <= 0) return (struct hs_moved){.err = filled < 0 ? errno : 0};

    held = f->last - f->first;
    pieces[count++] = (struct iovec){.iov_base = f->buffer + f->first, .iov_len = held};
    moved = send_all(t, pieces, count, t->head_length - t->head_sent + held);
    f->first += (size_t)moved.body;
    f->at += moved.body;
    return moved;
}

/* Memory is sent from where it lies, with the prefixes between. */
struct hs_moved
hs_frames_in_place(const struct hs_transfer *t)
{
    const struct hs_frames *f = t->frames;
    struct hs_stretch stretches[STRETCHES];
    struct iovec pieces[1 + STRETCHES];
    int count = add_head(t, pieces);
    off_t wire = position(t);
    off_t end = t->report ? hs_frames_milestone(f, wire, MILESTONE)
                          : hs_frames_reach(f, wire, hs_next_chunk(t));
    size_t asked = t->head_length - t->head_sent;

    if (t->sent == t->length) return hs_send_head(t, false);
    for (int i = 0; i < STRETCHES && wire < end; i++) {
        struct hs_stretch *s = &stretches[i];
        const void *bytes;
        size_t length;

        hs_frames_stretch(f, wire, s);
        length = (size_t)(s->length < end - wire ? s->length : end - wire);
        bytes = s->part == HS_STRETCH_PAYLOAD ? (const void *)(f->memory + f->offset + s->region)
                                              : s->bytes;
        pieces[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
        asked += length;
        wire += (off_t)length;
    }
    return send_all(t, pieces, count, asked);
}

/* What goes ahead of the next payload, laid end to end: the head's rest, padding, a prefix. */
struct lead {
    char bytes[HEAD_ROOM + HS_FRAME_PADDING_MAX + HS_FRAME_PREFIX];
    size_t length;
};

/*
 * The next payload with what goes ahead of it. A prefix is a promise, which is not given before the file is
 * seen to have what it speaks of. False: it hasn't, or doesn't tell; or a boundary comes first that somebody
 * hears of, behind padding.
 */
static bool
next_payload(const struct hs_transfer *t, struct lead *lead, struct hs_stretch *s,
             enum hs_presence *presence)
{
    const struct hs_frames *f = t->frames;
    off_t start = position(t);

    for (off_t wire = start; wire < t->offset + t->length; wire += s->length) {
        if (hs_frames_at_boundary(f, wire)) {
            if (t->report && wire > start) return false;
            *presence = hs_frames_in_file(f, t->in_fd, wire);
            if (*presence != HS_PRESENT) return false;
        }
        hs_frames_stretch(f, wire, s);
        if (s->part == HS_STRETCH_PAYLOAD) return true;
        memcpy(lead->bytes + lead->length, s->bytes, (size_t)s->length);
        lead->length += (size_t)s->length;
    }
    return false;
}

/* One payload with its lead, which is to the platform's sendfile a region with its head. */
static struct hs_moved
send_payload(const struct hs_transfer *t, off_t *asked)
{
    struct hs_transfer one = *t;
    size_t head_left = t->head_length - t->head_sent;
    struct lead lead = {.length = head_left};
    enum hs_presence presence = HS_PRESENT;
    struct hs_stretch s = {.length = 0};
    bool found;

    memcpy(lead.bytes, t->head + t->head_sent, head_left);
    found = next_payload(t, &lead, &s, &presence);
    one.offset = t->frames->offset + s.region;
    one.length = found ? s.length : 0;
    one.sent = 0;
    one.head = lead.bytes;
    one.head_length = lead.length;
    one.head_sent = 0;
    *asked = (off_t)lead.length + one.length;
    if (presence == HS_PRESENT || lead.length > head_left) {
        struct hs_moved moved = hs_os_sendfile(&one);
        struct hs_moved split = hs_split(t, (off_t)moved.head + moved.body, moved.err);

        split.refused = moved.refused;
        return split;
    }
    /* Nothing of the next frame is promised, and the head, which would be of no use, is not sent either. */
    if (presence == HS_ABSENT) return (struct hs_moved){.err = 0};
    return (struct hs_moved){.err = EINVAL, .refused = true};
}

/* For frames so large that a system call for each is cheaper than to copy them. */
struct hs_moved
hs_frames_sendfile(const struct hs_transfer *t)
{
    struct hs_transfer rest = *t;
    off_t end = hs_frames_reach(t->frames, position(t), hs_next_chunk(t));
    struct hs_moved moved = {0};
    off_t asked, done;

    if (t->sent == t->length) return hs_send_head(t, false);
    if (t->head_length - t->head_sent > HEAD_ROOM) {
        moved = hs_send_head(t, true);
        if (moved.err != 0) return moved;
        rest.head_sent = rest.head_length;
    }
    do {
        struct hs_moved one = send_payload(&rest, &asked);

        done = (off_t)one.head + one.body;
        rest.head_sent += one.head;
        rest.sent += one.body;
        moved.err = one.err;
        moved.refused = one.refused;
    } while (done == asked && done > 0 && moved.err == 0 && position(&rest) < end &&
             !hs_wanted(t) && !(t->report && hs_frames_at_boundary(t->frames, position(&rest))));
    moved.head = rest.head_sent - t->head_sent;
    moved.body = rest.sent - t->sent;
    return moved;
}
