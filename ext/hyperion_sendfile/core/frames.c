/*
 * DATA frames: computes which bytes are at which position on the wire, and lays them out in memory.
 * Only arithmetic and one read; framed.c sends them.
 */
#include "frames.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { TYPE_DATA = 0, FLAG_END_STREAM = 1, FLAG_PADDED = 8 };

static const unsigned char zeros[HS_FRAME_PADDING_MAX];

static off_t
prefix_length(const struct hs_frames *f)
{
    return f->padding > 0 ? HS_FRAME_PREFIX : HS_FRAME_HEADER;
}

static off_t
overhead(const struct hs_frames *f)
{
    return prefix_length(f) + f->padding;
}

/* The bytes of a full frame on the wire. */
static off_t
full_frame(const struct hs_frames *f)
{
    return f->payload + overhead(f);
}

off_t
hs_frames_wire_length(const struct hs_frames *f)
{
    off_t frames = f->length / f->payload + (f->length % f->payload > 0);

    if (f->length == 0 && f->end_stream) frames = 1;
    if (frames > (INT64_MAX - f->length) / overhead(f)) return -1;
    return f->length + frames * overhead(f);
}

static off_t
at_most(off_t value, off_t limit)
{
    return value < limit ? value : limit;
}

/* How many bytes of the region are before this position. */
off_t
hs_frames_region(const struct hs_frames *f, off_t wire)
{
    off_t before = wire / full_frame(f) * f->payload;
    off_t within = wire % full_frame(f) - prefix_length(f);

    if (within > 0) before += at_most(within, f->payload);
    return at_most(before, f->length);
}

bool
hs_frames_at_boundary(const struct hs_frames *f, off_t wire)
{
    return wire % full_frame(f) == 0 || wire == hs_frames_wire_length(f);
}

static void
write_prefix(const struct hs_frames *f, off_t start, off_t payload, unsigned char *to)
{
    uint32_t length = (uint32_t)payload + (f->padding > 0 ? 1u + f->padding : 0);
    bool last = start + payload == f->length;

    to[0] = (unsigned char)(length >> 16);
    to[1] = (unsigned char)(length >> 8);
    to[2] = (unsigned char)length;
    to[3] = TYPE_DATA;
    to[4] = (unsigned char)((f->end_stream && last ? FLAG_END_STREAM : 0) |
                            (f->padding > 0 ? FLAG_PADDED : 0));
    to[5] = (unsigned char)(f->stream_id >> 24);
    to[6] = (unsigned char)(f->stream_id >> 16);
    to[7] = (unsigned char)(f->stream_id >> 8);
    to[8] = (unsigned char)f->stream_id;
    to[9] = f->padding;
}

void
hs_frames_stretch(const struct hs_frames *f, off_t wire, struct hs_stretch *s)
{
    off_t start = wire / full_frame(f) * f->payload;
    off_t within = wire % full_frame(f);
    off_t payload = at_most(f->payload, f->length - start);
    off_t prefix = prefix_length(f);

    if (within < prefix) {
        write_prefix(f, start, payload, s->prefix);
        s->part = HS_STRETCH_PREFIX;
        s->bytes = s->prefix + within;
        s->length = prefix - within;
    } else if (within < prefix + payload) {
        s->part = HS_STRETCH_PAYLOAD;
        s->region = start + within - prefix;
        s->length = prefix + payload - within;
    } else {
        s->part = HS_STRETCH_PADDING;
        s->bytes = zeros;
        s->length = prefix + payload + f->padding - within;
    }
}

/* The last frame boundary up to this position. */
static off_t
boundary_before(const struct hs_frames *f, off_t wire)
{
    return hs_frames_at_boundary(f, wire) ? wire : wire - wire % full_frame(f);
}

/* Whether the file has the bytes that the frame at this position announces. */
enum hs_presence
hs_frames_in_file(const struct hs_frames *f, int fd, off_t wire)
{
    off_t start = hs_frames_region(f, wire);
    off_t end = f->offset + start + at_most(f->payload, f->length - start);
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return HS_UNKNOWN;
    return st.st_size < end ? HS_ABSENT : HS_PRESENT;
}

off_t
hs_frames_reach(const struct hs_frames *f, off_t wire, off_t limit)
{
    off_t total = hs_frames_wire_length(f);
    off_t end = total - wire <= limit ? total : wire + limit;
    off_t boundary = boundary_before(f, end);

    return boundary > wire ? boundary : end;
}

off_t
hs_frames_milestone(const struct hs_frames *f, off_t wire, off_t apart)
{
    off_t total = hs_frames_wire_length(f);
    off_t step = (apart / full_frame(f) + (apart < full_frame(f))) * full_frame(f);
    off_t before = wire - wire % step;

    return total - before <= step ? total : before + step;
}

/* Reads until the pieces are full, the file ends, or an error occurs. */
static off_t
read_all(hs_vector_reader *read, const void *in, struct iovec *pieces, int count, off_t offset,
         int *err)
{
    off_t done = 0;

    *err = 0;
    while (count > 0) {
        ssize_t got = read(in, pieces, count, offset + done);

        if (got < 0) *err = errno;
        if (got <= 0) break;
        done += got;
        while (count > 0 && (size_t)got >= pieces->iov_len) {
            got -= (ssize_t)pieces->iov_len;
            pieces++;
            count--;
        }
        if (count > 0) {
            pieces->iov_base = (char *)pieces->iov_base + got;
            pieces->iov_len -= (size_t)got;
        }
    }
    return done;
}

/*
 * Writes prefixes and padding of [wire, end) to their places; the pieces are the gaps for the
 * region.
 */
static int
lay_out_around(const struct hs_frames *f, off_t wire, off_t end, char *to, struct iovec *pieces)
{
    int count = 0;

    while (wire < end) {
        struct hs_stretch s;
        size_t length;

        hs_frames_stretch(f, wire, &s);
        length = (size_t)at_most(s.length, end - wire);
        if (s.part == HS_STRETCH_PAYLOAD) {
            pieces[count++] = (struct iovec){.iov_base = to, .iov_len = length};
        } else {
            memcpy(to, s.bytes, length);
        }
        to += length;
        wire += (off_t)length;
    }
    return count;
}

static void
fill_from_memory(const char *from, const struct iovec *pieces, int count)
{
    for (int i = 0; i < count; i++) {
        memcpy(pieces[i].iov_base, from, pieces[i].iov_len);
        from += pieces[i].iov_len;
    }
}

/*
 * If the file ends before the region, only whole frames are kept. The same holds if an error ended
 * the read: the whole frames are sent first, and the next read gets the error again, or succeeds.
 */
ssize_t
hs_frames_lay_out(const struct hs_frames *f, int fd, off_t wire, char *to, size_t capacity,
                  hs_vector_reader *read, const void *in)
{
    struct iovec pieces[HS_FRAMES_AT_ONCE + 1];
    off_t end = hs_frames_reach(f, wire, (off_t)capacity);
    off_t start = hs_frames_region(f, wire);
    off_t asked = hs_frames_region(f, end) - start;
    off_t got;
    int count = lay_out_around(f, wire, end, to, pieces);
    int err = 0;

    if (f->memory) {
        fill_from_memory(f->memory + f->offset + start, pieces, count);
        return end - wire;
    }
    if (hs_frames_at_boundary(f, wire) && !hs_frames_at_boundary(f, end) &&
        hs_frames_in_file(f, fd, wire) == HS_ABSENT) {
        return 0;
    }
    got = read_all(read, in, pieces, count, f->offset + start, &err);
    if (got == asked) return end - wire;

    end = (start + got) / f->payload * full_frame(f);
    if (end > wire) return end - wire;
    errno = err;
    return err == 0 ? 0 : -1;
}
