/*
 * A region as DATA frames (RFC 9113, 4.1 and 6.1): a stream of wire bytes that never exists as a
 * whole. Every frame but the last is full, therefore arithmetic finds any position in it. A
 * transfer of frames counts wire bytes: its offset, length and sent are positions in this stream.
 */
#ifndef HYPERION_FRAMES_H
#define HYPERION_FRAMES_H

#include "sendfile.h"

enum {
    HS_FRAME_HEADER = 9,
    HS_FRAME_PREFIX = HS_FRAME_HEADER + 1, /* with the pad length */
    HS_FRAME_MIN = 16384,                  /* SETTINGS_MAX_FRAME_SIZE: RFC 9113, 6.5.2 */
    HS_FRAME_MAX = 16777215,
    HS_FRAME_PADDING_MAX = 255,
    HS_FRAMES_AT_ONCE = 64, /* laid out by one call, at most */
    HS_FRAMES_CAPACITY =
        HS_FRAMES_AT_ONCE * (HS_FRAME_MIN - HS_FRAME_PADDING_MAX - 1), /* at most */
};

struct hs_frames {
    /* What to send: [offset, offset + length) of a file, or of memory if that is set. */
    off_t offset;
    off_t length;
    const char *memory;
    uint32_t stream_id;
    uint32_t payload; /* region bytes of a full frame */
    uint8_t padding;  /* 0: no frame is padded */
    bool end_stream;

    /* Laid out but not yet sent: [first, last) of the buffer, which is at `at` on the wire. */
    char *buffer; /* for hs_frames_buffered, and methods that it may replace */
    size_t capacity;
    size_t first;
    size_t last;
    off_t at;
};

/* A stretch of the wire, from any position to the end of the part of the frame there. */
struct hs_stretch {
    enum { HS_STRETCH_PREFIX, HS_STRETCH_PAYLOAD, HS_STRETCH_PADDING } part;
    off_t length;
    off_t region;               /* HS_STRETCH_PAYLOAD: its beginning in the region */
    const unsigned char *bytes; /* other parts: their bytes */
    unsigned char prefix[HS_FRAME_PREFIX];
};

/* Reads at an offset into pieces of memory, like preadv; `in` identifies the file. */
typedef ssize_t hs_vector_reader(const void *in, const struct iovec *pieces, int count,
                                 off_t offset);

off_t hs_frames_wire_length(const struct hs_frames *frames); /* -1: too large for off_t */
off_t hs_frames_region(const struct hs_frames *frames, off_t wire);
bool hs_frames_at_boundary(const struct hs_frames *frames, off_t wire);
void hs_frames_stretch(const struct hs_frames *frames, off_t wire, struct hs_stretch *stretch);

/* The end of a step: after whole frames, or within a frame that is larger than the limit. */
off_t hs_frames_reach(const struct hs_frames *frames, off_t wire, off_t limit);

/* The next of the boundaries about `apart` bytes apart, wherever a step began. */
off_t hs_frames_milestone(const struct hs_frames *frames, off_t wire, off_t apart);

/* UNKNOWN: for a file without a size (of /proc, a device), only a read tells. */
enum hs_presence { HS_PRESENT, HS_ABSENT, HS_UNKNOWN };
enum hs_presence hs_frames_in_file(const struct hs_frames *frames, int fd, off_t wire);

/*
 * Lays out the bytes after `wire` in `to`, up to its capacity: whole frames, or a piece of one
 * larger frame. Returns the bytes laid out; 0: the file ends before the next frame does; -1: errno.
 */
ssize_t hs_frames_lay_out(const struct hs_frames *frames, int fd, off_t wire, char *to,
                          size_t capacity, hs_vector_reader *read, const void *in);

/* read_preadv.c or read_pread.c: in points to a descriptor. */
hs_vector_reader hs_read_vector;

/* The methods: whole frames through a buffer; header and sendfile for each; memory, in place. */
hs_method hs_frames_buffered;
hs_method hs_frames_sendfile;
hs_method hs_frames_in_place;

#endif
