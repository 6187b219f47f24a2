/*
 * For support/no_wire.rb: a TCP connection to nobody, by what checkpoint and restore has for moving one (TCP_REPAIR).
 */
#include <ruby.h> /* first: it asks for the GNU names */

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define MSS    1460
#define SCALE  14          /* of both windows */
#define WINDOW (512 << 20) /* bytes */
#define FIRST  1000        /* sequence number, either way */

enum { OPTION_MSS = 2, OPTION_SCALE = 3, OPTION_SACK = 4 };

static void
set(int fd, int level, int option, const void *value, socklen_t size)
{
    if (setsockopt(fd, level, option, value, size) < 0) {
        close(fd);
        rb_sys_fail("setsockopt of a TCP connection to nobody");
    }
}

static void
set_int(int fd, int level, int option, int value)
{
    set(fd, level, option, &value, sizeof(value));
}

static struct sockaddr_in
address(const char *host, int port)
{
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &made.sin_addr);
    return made;
}

/* Bench.connect_nowhere(from, to, congestion_control) => fd: established, and alone; it is reset when it is closed */
static VALUE
bench_connect_nowhere(VALUE self, VALUE from, VALUE to, VALUE control)
{
    const struct sockaddr_in here = address(StringValueCStr(from), 0);
    const struct sockaddr_in there = address(StringValueCStr(to), 3000);
    const struct tcp_repair_opt options[] = {
        {OPTION_MSS, MSS}, {OPTION_SCALE, SCALE | SCALE << 16}, {OPTION_SACK, 0}};
    const struct tcp_repair_window window = {.snd_wl1 = FIRST,
                                             .snd_wnd = WINDOW,
                                             .max_window = WINDOW,
                                             .rcv_wnd = 65535,
                                             .rcv_wup = FIRST};
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) rb_sys_fail("socket");
    set(fd, IPPROTO_TCP, TCP_CONGESTION, RSTRING_PTR(control), (socklen_t)RSTRING_LEN(control));
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, WINDOW);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
    for (int queue = TCP_RECV_QUEUE; queue <= TCP_SEND_QUEUE; queue++) {
        set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
        set_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, FIRST);
    }
    set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
    if (bind(fd, (const struct sockaddr *)&here, sizeof(here)) < 0 ||
        connect(fd, (const struct sockaddr *)&there, sizeof(there)) < 0) {
        close(fd);
        rb_sys_fail("TCP connection to nobody");
    }
    set(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, sizeof(options));
    set(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window));
    set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
    return INT2NUM(fd);
}

void
Init_no_wire(void)
{
    rb_define_singleton_method(rb_define_module("Bench"), "connect_nowhere", bench_connect_nowhere,
                               3);
}
