/* Preloaded into a process under test: storage that hangs, and a clock that is wrong.
 *
 * While the file HANG_FILE exists, every fsync of a file below HANG_BELOW waits for ever.
 * SKEW_S seconds are added to the clock that tells the date, while the file SKEW_FILE exists if one
 * is named.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long skew_s(void) {
    const char *value = getenv("SKEW_S"), *file = getenv("SKEW_FILE");
    if (file && access(file, F_OK)) return 0;
    return value ? atol(value) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += skew_s();
    return status;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}

int fsync(int descriptor) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    const char *below = getenv("HANG_BELOW"), *file = getenv("HANG_FILE");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (below && file && length > 0 && !strncmp(path, below, strlen(below)))
        while (!access(file, F_OK)) usleep(100000);
    return real(descriptor);
}
