/*
 * The methods that send DATA frames. Their counts are bytes on the wire; the head before the frames
 * is counted separately.
 */
#include "frames.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* The most pieces of memory in one write; a frame has two or three of them. */
enum { STRETCHES = 6 * 10 };

/*
 * If the source is memory, a caller gets a report at boundaries this many bytes apart, even for a
 * slow reader.
 */
static const off_t MILESTONE = 256 * 1024;

/* A head of up to this many bytes is copied in front of the first frame's prefix. */
enum { HEAD_ROOM = 4 * 1024 };

static off_t
position(const struct hs_transfer *t)
{
    return t->offset + t->sent;
}

/* How many bytes are laid out at once: a caller that gets reports gets one for each buffer. */
static size_t
room(const struct hs_transfer *t)
{
    const struct hs_frames *f = t->frames;
    off_t left = hs_frames_milestone(f, position(t), (off_t)f->capacity) - position(t);

    return t->report && left < (off_t)f->capacity ? (size_t)left : f->capacity;
}

/* Fills the buffer with the next bytes. 1: filled; 0: the file has ended; -1: errno. */
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

/*
 * Sends the pieces, and reports how much the socket accepted. If that is less than all, the socket
 * is full.
 */
static struct hs_moved
send_all(const struct hs_transfer *t, struct iovec *pieces, int count, size_t asked)
{
    ssize_t sent = hs_send_without_waiting(t->out_fd, pieces, count, false);

    if (sent < 0) return (struct hs_moved){.err = errno};
    return hs_split(t, sent, (size_t)sent < asked ? EAGAIN : 0);
}

/*
 * Bytes that the socket does not accept stay in the buffer, and are not read again. Therefore a
 * frame that was begun can be completed, even if the file changes.
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

/* Sends memory in place, with the frame prefixes between its pieces. */
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

/* The bytes before the next payload: the rest of the head, padding, a prefix. */
struct lead {
    char bytes[HEAD_ROOM + HS_FRAME_PADDING_MAX + HS_FRAME_PREFIX];
    size_t length;
};

/*
 * Finds the next payload and the bytes before it. A prefix announces bytes, and is not sent before
 * the file is seen to have them. False: the file does not have them, or cannot tell; or there is
 * first a boundary, after padding, that has to be reported.
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

/* Sends one payload with its lead: for the platform's sendfile they are a region with its head. */
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
    /* The next frame is not begun, and the head, which would be useless without it, is not sent. */
    if (presence == HS_ABSENT) return (struct hs_moved){.err = 0};
    return (struct hs_moved){.err = EINVAL, .refused = true};
}

/* For frames so large that a system call for each is cheaper than copying them. */
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
