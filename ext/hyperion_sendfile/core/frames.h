/*
 * A region as DATA frames (RFC 9113, 4.1 and 6.1): a stream of wire bytes that exists nowhere as a whole.
 * Every frame but the last is full, so any position in it is found by arithmetic. A transfer of frames
 * counts wire bytes: its offset, length and sent are positions in this stream.
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
    HS_FRAMES_AT_ONCE = 64, /* that are laid out by one call */
    HS_FRAMES_CAPACITY =
        HS_FRAMES_AT_ONCE * (HS_FRAME_MIN - HS_FRAME_PADDING_MAX - 1), /* at most */
};

struct hs_frames {
    /* What to send: [offset, offset + length) of a file, or of memory where that is set. */
    off_t offset;
    off_t length;
    const char *memory;
    uint32_t stream_id;
    uint32_t payload; /* region bytes of a full frame */
    uint8_t padding;  /* 0: no frame is padded */
    bool end_stream;

    /* What was read and laid out, and is not sent yet: [first, last) of the buffer, from `at` on the wire. */
    char *buffer; /* there for hs_frames_buffered, and for what that may stand in for */
    size_t capacity;
    size_t first;
    size_t last;
    off_t at;
};

/* A stretch of the wire, from some position to the end of the part of a frame that it lies in. */
struct hs_stretch {
    enum { HS_STRETCH_PREFIX, HS_STRETCH_PAYLOAD, HS_STRETCH_PADDING } part;
    off_t length;
    off_t region;               /* HS_STRETCH_PAYLOAD: where in the region it begins */
    const unsigned char *bytes; /* of the others */
    unsigned char prefix[HS_FRAME_PREFIX];
};

/* Reads at an offset into pieces of memory, as preadv does; `in` is what it knows the file by. */
typedef ssize_t hs_vector_reader(const void *in, const struct iovec *pieces, int count,
                                 off_t offset);

off_t hs_frames_wire_length(const struct hs_frames *frames); /* -1: beyond what can be counted */
off_t hs_frames_region(const struct hs_frames *frames, off_t wire);
bool hs_frames_at_boundary(const struct hs_frames *frames, off_t wire);
void hs_frames_stretch(const struct hs_frames *frames, off_t wire, struct hs_stretch *stretch);

/* Where a step ends: behind whole frames, or in a frame that is larger than the limit. */
off_t hs_frames_reach(const struct hs_frames *frames, off_t wire, off_t limit);

/* The next of those boundaries that are about so many bytes apart, wherever a step began. */
off_t hs_frames_milestone(const struct hs_frames *frames, off_t wire, off_t apart);

/* Of a file without a size (of /proc, a device) only a read tells. */
enum hs_presence { HS_PRESENT, HS_ABSENT, HS_UNKNOWN };
enum hs_presence hs_frames_in_file(const struct hs_frames *frames, int fd, off_t wire);

/*
 * Lays out what follows `wire`, up to the capacity, in `to`: whole frames, or a piece of one that is
 * larger than that. Bytes laid out; 0 where the file ends before the next frame does; -1: errno.
 */
ssize_t hs_frames_lay_out(const struct hs_frames *frames, int fd, off_t wire, char *to,
                          size_t capacity, hs_vector_reader *read, const void *in);

/* read_preadv.c or read_pread.c: in points to a descriptor. */
hs_vector_reader hs_read_vector;

/* The methods: whole frames by way of memory; header and sendfile for each; from memory, in place. */
hs_method hs_frames_buffered;
hs_method hs_frames_sendfile;
hs_method hs_frames_in_place;

#endif
