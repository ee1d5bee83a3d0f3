/* Loaded before the C library: while the file that ARDB_FAIL_SYNC names is there, nothing can be made durable. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int fails(void) {
    const char *name = getenv("ARDB_FAIL_SYNC");
    if (name == NULL || access(name, F_OK) != 0) return 0;
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fails() ? -1 : next(fd);
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails() ? -1 : next(fd);
}

int msync(void *start, size_t length, int flags) {
    int (*next)(void *, size_t, int) = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    return fails() ? -1 : next(start, length, flags);
}
