/* What macOS declares in <fcntl.h> beyond POSIX, as far as os_darwin.c uses it. */
#ifndef STAND_IN_DARWIN_FCNTL_H
#define STAND_IN_DARWIN_FCNTL_H

#include_next <fcntl.h>

#define F_RDADVISE 44

struct radvisory {
    off_t ra_offset;
    int ra_count;
};

int stand_in_fcntl(int fd, int command, ...);
#define fcntl stand_in_fcntl

#endif
