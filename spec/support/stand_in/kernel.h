/*
 * A kernel to test os_darwin.c and os_freebsd.c against: it moves bytes by pread and sendmsg, and what
 * each call suffers is written in a script. darwin/ and freebsd/ have the system calls themselves.
 */
#ifndef STAND_IN_KERNEL_H
#define STAND_IN_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* What one call suffers: it moves so many bytes, and ends with an error. */
struct stand_in_fate {
    off_t after; /* NOT_TOUCHED: it fails before it looks at its arguments */
    int err;     /* 0: nothing */
    bool short_head;
};

enum { STAND_IN_NOT_TOUCHED = -1 };

/* The next `times` calls suffer this, where all but the first move nothing. */
void stand_in_script(int err, int64_t after, int times);

/* Every call that no script is left for suffers by chance, and the same by the same seed. 0: none does. */
void stand_in_seed(uint64_t seed);

/* How many calls there were, how many of those suffered, and how many were asked for all to the end of the file. */
enum stand_in_counter { STAND_IN_CALLS, STAND_IN_SUFFERED, STAND_IN_TO_THE_END, STAND_IN_COUNTERS };
uint64_t stand_in_counted(unsigned counter);

/* ---- for darwin/ and freebsd/ ---- */

/* transient: what such a call fails with when nothing is lost, ended by 0. */
struct stand_in_fate stand_in_next(const int *transient);

/* The errno of a pair that can't be served, or 0. irregular: of a source that is no regular file; gone: of a reset peer. */
int stand_in_check(int fd, int s, off_t offset, int irregular, int gone);

/*
 * head, then length bytes of the file (0: to its end), as one. Counts what moved in *sent; returns 0, or an
 * errno, which may come with bytes.
 */
int stand_in_move(int s, int fd, off_t offset, off_t length, struct iovec head,
                  struct stand_in_fate fate, off_t *sent);

#endif
