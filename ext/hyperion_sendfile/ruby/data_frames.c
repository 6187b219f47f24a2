/* Native::Frames: a region as DATA frames, and the bytes of it that were read but not yet sent. */
#include <ruby.h>
#include <ruby/thread.h>

#include "frames.h"
#include "glue.h"

#include <errno.h>
#include <limits.h>

/* Bytes that are read, and sent, at a time. bench/frames.rb finds the value. */
static const size_t AT_ONCE = 256 * 1024;

/* For frames of up to this many bytes, no other way is cheaper. */
static const long SMALL_FRAME = 16 * 1024;

struct region {
    struct hs_frames frames;
    VALUE memory; /* nil: a file */
};

static void
mark(void *data)
{
    rb_gc_mark(((struct region *)data)->memory); /* and therefore it is not moved */
}

static void
release(void *data)
{
    struct region *region = data;

    if (!NIL_P(region->memory)) hs_memory_forget(region->memory);
    xfree(region->frames.buffer);
    xfree(region);
}

static size_t
memsize(const void *data)
{
    const struct region *region = data;

    return sizeof(*region) + (region->frames.buffer ? region->frames.capacity : 0);
}

static const rb_data_type_t TYPE = {
    .wrap_struct_name = "Hyperion::Http::Sendfile::Native::Frames",
    .function = {.dmark = mark, .dfree = release, .dsize = memsize},
    .flags = RUBY_TYPED_FREE_IMMEDIATELY,
};

static struct region *
region_of(VALUE self)
{
    return rb_check_typeddata(self, &TYPE);
}

/*
 * Looks up the address each time, because the parent of a slice of an IO::Buffer may have been
 * freed meanwhile.
 */
static void
find_memory(struct region *region)
{
    struct hs_frames *f = &region->frames;

    f->memory = NULL;
    if (NIL_P(region->memory)) return;
    if ((off_t)hs_memory_bytes(region->memory, &f->memory) < f->offset + f->length) {
        rb_raise(rb_eArgError, "source is shorter than it was");
    }
}

struct hs_frames *
hs_frames_of(VALUE frames)
{
    struct region *region = region_of(frames);

    find_memory(region);
    return &region->frames;
}

/* Like hs_frames_of, with a buffer for bytes that are read before they are sent. */
struct hs_frames *
hs_frames_to_send(VALUE frames)
{
    struct hs_frames *f = hs_frames_of(frames);
    off_t wire = hs_frames_wire_length(f);

    if (f->memory || f->buffer) return f;
    if (wire < (off_t)f->capacity) f->capacity = (size_t)wire;
    f->buffer = xmalloc(f->capacity);
    return f;
}

static void
let_go(struct region *region)
{
    VALUE memory = region->memory;

    xfree(region->frames.buffer);
    region->frames.buffer = NULL;
    region->frames.first = region->frames.last = 0;
    region->frames.memory = NULL;
    region->memory = Qnil;
    if (!NIL_P(memory)) hs_memory_let_go(memory);
}

static VALUE
frames_new(VALUE class)
{
    struct region *region;
    VALUE self = TypedData_Make_Struct(class, struct region, &TYPE, region);

    region->memory = Qnil;
    region->frames.payload = HS_FRAME_MIN;
    return self;
}

/*
 * frames.set(memory, offset, len, stream_id, max_frame_size, padding, end_stream, at_once = 256 KiB) -> frames
 *
 * memory: a frozen String, an IO::Buffer, or nil for a file. at_once: bytes that are read, and
 * sent, at a time. The caller has checked the arguments. Not to be called during a transfer of
 * these frames.
 */
static VALUE
frames_set(int argc, VALUE *argv, VALUE self)
{
    struct region *region = region_of(self);
    struct hs_frames *f = &region->frames;

    rb_check_arity(argc, 7, 8);
    let_go(region);
    f->offset = hs_bytes(argv[1], "offset");
    f->length = hs_bytes(argv[2], "len");
    f->stream_id = NUM2UINT(argv[3]);
    f->padding = (uint8_t)NUM2UINT(argv[5]);
    f->payload = NUM2UINT(argv[4]) - (f->padding > 0 ? 1u + f->padding : 0);
    f->end_stream = RTEST(argv[6]);
    f->capacity = argc > 7 ? NUM2SIZET(argv[7]) : AT_ONCE;
    if (f->capacity > HS_FRAMES_CAPACITY) f->capacity = HS_FRAMES_CAPACITY;
    if (hs_frames_wire_length(f) < 0) {
        rb_raise(rb_eRangeError, "len is too large for so many frames");
    }
    region->memory = NIL_P(argv[0]) ? Qnil : hs_memory_hold(argv[0], &f->offset, f->length);
    find_memory(region);
    return self;
}

/* Whether value is an Integer from least to most. */
static bool
between(VALUE value, long least, long most)
{
    return FIXNUM_P(value) && FIX2LONG(value) >= least && FIX2LONG(value) <= most;
}

/*
 * frames.set_small(source, offset, len, stream_id, max_frame_size, end_stream) -> true or false
 *
 * Like set, for a region of an IO that is read at once, in small frames without padding. false:
 * another case, or a wrong argument; nothing is set.
 */
static VALUE
frames_set_small(VALUE self, VALUE source, VALUE offset, VALUE len, VALUE stream_id,
                 VALUE max_frame_size, VALUE end_stream)
{
    struct region *region = region_of(self);
    struct hs_frames f = {.capacity = AT_ONCE, .end_stream = RTEST(end_stream)};

    if (!RB_TYPE_P(source, T_FILE) || !between(len, 1, (long)AT_ONCE) ||
        !between(offset, 0, LONG_MAX - FIX2LONG(len)) || !between(stream_id, 1, INT32_MAX) ||
        !between(max_frame_size, HS_FRAME_MIN, SMALL_FRAME) ||
        (end_stream != Qtrue && end_stream != Qfalse)) {
        return Qfalse;
    }
    f.offset = FIX2LONG(offset);
    f.length = FIX2LONG(len);
    f.stream_id = (uint32_t)FIX2LONG(stream_id);
    f.payload = (uint32_t)FIX2LONG(max_frame_size);
    if (hs_frames_wire_length(&f) > (off_t)AT_ONCE) return Qfalse;

    let_go(region);
    region->frames = f;
    return Qtrue;
}

/* frames.wire_length -> bytes of all frames */
static VALUE
frames_wire_length(VALUE self)
{
    return OFFT2NUM(hs_frames_wire_length(&region_of(self)->frames));
}

/* frames.region(wire) -> bytes of the region before this position on the wire */
static VALUE
frames_region(VALUE self, VALUE wire)
{
    return OFFT2NUM(hs_frames_region(&region_of(self)->frames, hs_bytes(wire, "wire")));
}

/* frames.boundary?(wire) -> whether no frame is cut in two there */
static VALUE
frames_boundary_p(VALUE self, VALUE wire)
{
    return hs_frames_at_boundary(&region_of(self)->frames, hs_bytes(wire, "wire")) ? Qtrue : Qfalse;
}

/* frames.payload -> bytes of the region in a full frame */
static VALUE
frames_payload(VALUE self)
{
    return UINT2NUM(region_of(self)->frames.payload);
}

/* frames.release -> nil: releases the buffer with its content, and the memory */
static VALUE
frames_release(VALUE self)
{
    let_go(region_of(self));
    return Qnil;
}

struct lay_out {
    struct hs_read read; /* must be the first member */
    const struct hs_frames *frames;
    off_t wire;
    char *to;
    size_t capacity;
    VALUE source;
};

static VALUE
read_source(VALUE argument)
{
    struct lay_out *job = (struct lay_out *)argument;

    hs_read_source(&job->read, job->source);
    return Qnil;
}

static void
lay_out(struct hs_read *read)
{
    const struct lay_out *job = (const struct lay_out *)read;

    read->got = hs_frames_lay_out(job->frames, read->fd, job->wire, job->to, job->capacity,
                                  hs_read_vector, &read->fd);
    read->err = read->got < 0 ? errno : 0;
}

/*
 * frames.read(file, wire, room, buffer) -> buffer
 *
 * Fills the buffer with the next wire bytes: as many whole frames as fit into room, or a piece of
 * one larger frame. The buffer is empty if the file ends before the next frame does. file: nil for
 * memory.
 */
static VALUE
frames_read(VALUE self, VALUE file, VALUE wire, VALUE room, VALUE buffer)
{
    struct lay_out job = {.read = {.run = lay_out, .fd = -1}, .frames = hs_frames_of(self)};

    job.source = NIL_P(file) ? Qnil : hs_in_source(file);
    if (!NIL_P(job.source)) (void)hs_in_descriptor(job.source); /* raises if it is closed */
    job.wire = hs_bytes(wire, "wire");
    job.capacity = NUM2SIZET(room);
    if (job.capacity > HS_FRAMES_CAPACITY) job.capacity = HS_FRAMES_CAPACITY;
    rb_str_modify(buffer); /* slices of it may share its memory */
    rb_str_set_len(buffer, 0);
    rb_str_modify_expand(buffer, (long)job.capacity);
    job.to = RSTRING_PTR(buffer);
    if (NIL_P(job.source)) {
        lay_out(&job.read);
    } else {
        rb_str_locktmp(buffer); /* a destination may have kept it, and other threads run now */
        rb_ensure(read_source, (VALUE)&job, rb_str_unlocktmp, buffer);
    }
    if (job.read.got < 0) rb_syserr_fail(job.read.err, NULL);
    rb_str_set_len(buffer, (long)job.read.got);
    return buffer;
}

/* Frames.buffers? -> whether memory may be an IO::Buffer */
static VALUE
frames_buffers_p(VALUE class)
{
    (void)class;
    return hs_memory_has_buffers ? Qtrue : Qfalse;
}

void
hs_init_frames(VALUE mNative)
{
    VALUE cFrames = rb_define_class_under(mNative, "Frames", rb_cObject);

    hs_memory_init();
    rb_undef_alloc_func(cFrames);
    rb_define_singleton_method(cFrames, "new", frames_new, 0);
    rb_define_singleton_method(cFrames, "buffers?", frames_buffers_p, 0);
    rb_define_method(cFrames, "set", frames_set, -1);
    rb_define_method(cFrames, "set_small", frames_set_small, 6);
    rb_define_method(cFrames, "wire_length", frames_wire_length, 0);
    rb_define_method(cFrames, "region", frames_region, 1);
    rb_define_method(cFrames, "boundary?", frames_boundary_p, 1);
    rb_define_method(cFrames, "payload", frames_payload, 0);
    rb_define_method(cFrames, "read", frames_read, 4);
    rb_define_method(cFrames, "release", frames_release, 0);
}
