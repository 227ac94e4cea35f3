/*
 * Stands between the broker and the C library, so that a disk fails and a clock is wrong for a broker that knows
 * nothing of tests:
 *
 *   SHIM_FAIL_SYNC=FILE   fdatasync fails with EIO while FILE exists
 *   SHIM_CLOCK_S=SECONDS  the wall clock is so many seconds ahead; the monotonic clock is right
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd)
{
    const char *trigger = getenv("SHIM_FAIL_SYNC");
    if (trigger && access(trigger, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    const char *ahead = getenv("SHIM_CLOCK_S");
    if (result == 0 && clock == CLOCK_REALTIME && ahead)
        time->tv_sec += atol(ahead);
    return result;
}
