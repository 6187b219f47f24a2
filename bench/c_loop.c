/*
 * The peer that large.rb measures against: the least a C program has to do to put a region of a file on a
 * non-blocking socket. A method of the module Bench, so that it runs in the process of the other peers and costs no
 * more than a method call; support/c_loop.rb compiles it.
 */
#include <ruby.h> /* first: it asks for the GNU names */

#include <errno.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/types.h>

/* Bench.c_loop(out_fd, in_fd, offset, length) => bytes sent, fewer than length when the file ends first */
static VALUE c_loop(VALUE self, VALUE out_fd, VALUE in_fd, VALUE offset, VALUE length) {
    const int out = NUM2INT(out_fd);
    const int in = NUM2INT(in_fd);
    const off_t start = NUM2OFFT(offset);
    const off_t end = start + NUM2OFFT(length);
    off_t position = start;

    (void)self;
    while (position < end) {
        const ssize_t sent = sendfile(out, in, &position, (size_t)(end - position));

        if (sent > 0 || (sent < 0 && errno == EINTR)) {
            continue;
        }
        if (sent == 0) {
            break;
        }
        if (errno != EAGAIN) {
            rb_sys_fail("sendfile");
        }
        struct pollfd writable = {.fd = out, .events = POLLOUT, .revents = 0};
        if (poll(&writable, 1, -1) < 0 && errno != EINTR) {
            rb_sys_fail("poll");
        }
    }
    return OFFT2NUM(position - start);
}

void Init_c_loop(void) {
    rb_define_singleton_method(rb_define_module("Bench"), "c_loop", c_loop, 4);
}
