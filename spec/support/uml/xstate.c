/*
 * Preloaded into user-mode-linux, whose buffer for the floating point state of a guest process may be
 * smaller than what this processor has (AMX): the host then refuses to set it. What is missing of
 * the state is taken from the process itself.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The header of an XSAVE area begins with a bit for each component that is in use. */
enum { XSTATE_BV = 512 };
/* Components from here on (the tiles of AMX) lie beyond the buffer of user-mode-linux. */
static const uint64_t BEYOND = ~(uint64_t)0 << 17;

static long
system_call(enum __ptrace_request request, pid_t pid, void *address, void *data)
{
    return syscall(SYS_ptrace, request, pid, address, data);
}

static long
set_xstate(pid_t pid, void *address, struct iovec *given)
{
    static __thread char area[64 * 1024];
    struct iovec whole = {area, sizeof(area)};
    uint64_t there, set;

    if (system_call(PTRACE_GETREGSET, pid, address, &whole) < 0) return -1;
    if (whole.iov_len <= given->iov_len) {
        return system_call(PTRACE_SETREGSET, pid, address, given);
    }
    memcpy(&there, area + XSTATE_BV, sizeof(there));
    memcpy(area, given->iov_base, given->iov_len);
    memcpy(&set, area + XSTATE_BV, sizeof(set));
    set = (set & ~BEYOND) | (there & BEYOND);
    memcpy(area + XSTATE_BV, &set, sizeof(set));
    return system_call(PTRACE_SETREGSET, pid, address, &whole);
}

long
ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    pid_t pid;
    void *address, *data;
    long word;

    va_start(arguments, request);
    pid = va_arg(arguments, pid_t);
    address = va_arg(arguments, void *);
    data = va_arg(arguments, void *);
    va_end(arguments);

    if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE) {
        return set_xstate(pid, address, data);
    }
    /* The system call stores what glibc's function returns. */
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        return system_call(request, pid, address, &word) < 0 ? -1 : word;
    }
    return system_call(request, pid, address, data);
}
