/*
 * The client of small.rb: asks on kept-alive connections, again on each as soon as its response is there, and takes the
 * time to the last byte. In C so that its own cost is small beside what it measures. A method of the module Bench;
 * nothing of it is in the gem. support/client.rb compiles it.
 */
#include <ruby.h> /* first: it asks for the GNU names */
#include <ruby/io.h>

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <time.h>

enum { MOST_CONNECTIONS = 64 };

struct connection {
    double asked; /* when */
    long left;    /* bytes of the response */
};

static double now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void say(int fd, char what) {
    if (send(fd, &what, 1, MSG_NOSIGNAL) != 1) rb_sys_fail("send");
}

/* Whether the response is there to its last byte. */
static bool take(int fd, struct connection *connection) {
    static char buffer[1 << 20];

    while (connection->left > 0) {
        const size_t want = (size_t)connection->left < sizeof(buffer) ? (size_t)connection->left : sizeof(buffer);
        const ssize_t got = recv(fd, buffer, want, MSG_DONTWAIT);

        if (got == 0) rb_raise(rb_eEOFError, "the server closed the connection");
        if (got < 0 && errno == EAGAIN) return false;
        if (got < 0) rb_sys_fail("recv");
        connection->left -= got;
    }
    return true;
}

/*
 * Bench.ask([socket, ...], bytes, responses, seconds) => [seconds of each response]. Says "?" to ask, and "." on each
 * connection when there have been that many responses in all, or that many seconds have passed.
 */
static VALUE ask(VALUE self, VALUE sockets, VALUE bytes, VALUE responses, VALUE seconds) {
    struct connection connections[MOST_CONNECTIONS];
    struct pollfd fds[MOST_CONNECTIONS];
    const long count = RARRAY_LEN(sockets);
    const double begun = now();
    const double end = begun + NUM2DBL(seconds);
    const long length = NUM2LONG(bytes);
    long to_ask = NUM2LONG(responses);
    long asking = count;
    VALUE times = rb_ary_new();

    if (count > MOST_CONNECTIONS) rb_raise(rb_eArgError, "too many connections");
    for (long i = 0; i < count; i++) {
        fds[i] = (struct pollfd){.fd = rb_io_descriptor(RARRAY_AREF(sockets, i)), .events = POLLIN};
        connections[i] = (struct connection){.asked = now(), .left = length};
        say(fds[i].fd, '?');
        to_ask--;
    }
    while (asking > 0) {
        if (poll(fds, (nfds_t)count, -1) < 0 && errno != EINTR) rb_sys_fail("poll");
        for (long i = 0; i < count; i++) {
            if (fds[i].fd < 0 || fds[i].revents == 0 || !take(fds[i].fd, &connections[i])) continue;

            const double there = now();
            rb_ary_push(times, DBL2NUM(there - connections[i].asked));
            if (to_ask > 0 && there < end) {
                to_ask--;
                connections[i] = (struct connection){.asked = now(), .left = length};
                say(fds[i].fd, '?');
            } else {
                say(fds[i].fd, '.');
                fds[i].fd = -1; /* of which poll takes no notice */
                asking--;
            }
        }
    }
    return times;
}

void Init_client(void) {
    rb_define_singleton_method(rb_define_module("Bench"), "ask", ask, 4);
}
