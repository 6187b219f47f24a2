/*
 * What paths.rb and zerocopy.rb measure against: the least a C program has to do to put a file on non-blocking sockets;
 * and what measuring takes that Ruby has no method for. Methods of the module Bench, so that they run in the process of
 * the other peers; nothing of it is in the gem. support/c_loop.rb compiles it.
 */
#include <ruby.h> /* first: it asks for the GNU names */
#include <ruby/io.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

/* Sends from the file's position on, and moves it. As sendfile(2): 0 is the end of the file. */
typedef ssize_t send_some(int out, int in, off_t *position, size_t length);

static ssize_t by_sendfile(int out, int in, off_t *position, size_t length) {
    return sendfile(out, in, position, length);
}

static ssize_t by_memory(int out, int in, off_t *position, size_t length) {
    static char buffer[64 * 1024];
    const ssize_t got = pread(in, buffer, length < sizeof(buffer) ? length : sizeof(buffer), *position);
    ssize_t sent;

    if (got <= 0) return got;
    sent = send(out, buffer, (size_t)got, MSG_NOSIGNAL);
    if (sent > 0) *position += sent;
    return sent;
}

static void wait_for_room(int out) {
    struct pollfd writable = {.fd = out, .events = POLLOUT, .revents = 0};

    if (poll(&writable, 1, -1) < 0 && errno != EINTR) rb_sys_fail("poll");
}

static void send_all(int out, int in, off_t position, off_t length, send_some *send_some) {
    const off_t end = position + length;

    while (position < end) {
        const ssize_t sent = send_some(out, in, &position, (size_t)(end - position));

        if (sent > 0) continue;
        if (sent == 0) rb_raise(rb_eEOFError, "the file ends before its length");
        if (errno == EAGAIN) {
            wait_for_room(out);
        } else if (errno != EINTR) {
            rb_sys_fail("send");
        }
    }
}

static VALUE to_each(VALUE sockets, VALUE file, VALUE length, send_some *send_some) {
    const int in = rb_io_descriptor(file);
    const off_t bytes = NUM2OFFT(length);

    for (long i = 0; i < RARRAY_LEN(sockets); i++) {
        send_all(rb_io_descriptor(RARRAY_AREF(sockets, i)), in, 0, bytes, send_some);
    }
    return Qnil;
}

/* Bench.c_loop(out_fd, in_fd, offset, length) => nil, one region by sendfile(2) */
static VALUE c_loop(VALUE self, VALUE out_fd, VALUE in_fd, VALUE offset, VALUE length) {
    send_all(NUM2INT(out_fd), NUM2INT(in_fd), NUM2OFFT(offset), NUM2OFFT(length), by_sendfile);
    return Qnil;
}

/* Bench.c_sendfile([socket, ...], file, length) => nil, the first length bytes of the file to each of them */
static VALUE c_sendfile(VALUE self, VALUE sockets, VALUE file, VALUE length) {
    return to_each(sockets, file, length, by_sendfile);
}

/* Bench.c_pread_send(...): the same through memory */
static VALUE c_pread_send(VALUE self, VALUE sockets, VALUE file, VALUE length) {
    return to_each(sockets, file, length, by_memory);
}

/* Bench.context_switches => [voluntary, involuntary], of all threads of this process so far: getrusage(2) */
static VALUE context_switches(VALUE self) {
    struct rusage usage;

    if (getrusage(RUSAGE_SELF, &usage) < 0) rb_sys_fail("getrusage");
    return rb_assoc_new(LONG2NUM(usage.ru_nvcsw), LONG2NUM(usage.ru_nivcsw));
}

static cpu_set_t allowed; /* as this process was started */

/* Bench.pin(n) => nil; from now on this thread runs on the nth of the allowed CPUs, counted round */
static VALUE pin(VALUE self, VALUE n) {
    cpu_set_t one;
    int cpu = -1;

    for (int left = NUM2INT(n) % CPU_COUNT(&allowed); left >= 0; left--) {
        do {
            cpu++;
        } while (!CPU_ISSET(cpu, &allowed));
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) < 0) rb_sys_fail("sched_setaffinity");
    return Qnil;
}

void Init_c_loop(void) {
    VALUE mBench = rb_define_module("Bench");

    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0) rb_sys_fail("sched_getaffinity");
    rb_define_singleton_method(mBench, "c_loop", c_loop, 4);
    rb_define_singleton_method(mBench, "c_sendfile", c_sendfile, 3);
    rb_define_singleton_method(mBench, "c_pread_send", c_pread_send, 3);
    rb_define_singleton_method(mBench, "context_switches", context_switches, 0);
    rb_define_singleton_method(mBench, "pin", pin, 1);
}
