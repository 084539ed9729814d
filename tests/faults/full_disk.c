/* A disk that is full from the N-th write on: LD_PRELOADed into a worker, it counts writes to files under
 * FINETUNE_HOME and fails them with ENOSPC once FULL_AT of them were made. Deleting the worker's reserve
 * makes room again if FULL_RESERVE is set, as it does on a real disk. The count is left in FULL_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long writes;
static atomic_int freed;

static int under_home(int fd) {
    char link[64], path[4096];
    const char *home = getenv("FINETUNE_HOME");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || !home) return 0;
    path[length] = 0;
    return !strncmp(path, home, strlen(home)) && !strstr(path, "worker.log");
}

static int full(int fd) {
    const char *at = getenv("FULL_AT"), *count = getenv("FULL_COUNT");
    int before = errno;
    if (!at || !under_home(fd)) { errno = before; return 0; }
    long now = atomic_fetch_add(&writes, 1) + 1;
    if (count) {
        char text[32];
        int place = open(count, O_WRONLY | O_CREAT, 0600);
        ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        if (place >= 0) { real(place, text, snprintf(text, sizeof text, "%ld", now)); close(place); }
    }
    errno = before;
    if (atol(at) && now >= atol(at) && !atomic_load(&freed)) { errno = ENOSPC; return 1; }
    return 0;
}

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return full(fd) ? -1 : real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return full(fd) ? -1 : real(fd, parts, count);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    return full(fd) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    return full(fd) ? -1 : real(fd, data, size, at);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    REAL(ssize_t, sendfile, int, int, off_t *, size_t);
    return full(to) ? -1 : real(to, from, at, size);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
    return full(to) ? -1 : real(to, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    return full(to) ? -1 : real(from, a, to, b, size, flags);
}
int unlink(const char *path) {
    REAL(int, unlink, const char *);
    size_t length = strlen(path);
    if (getenv("FULL_RESERVE") && length > 8 && !strcmp(path + length - 8, "/reserve")) atomic_store(&freed, 1);
    return real(path);
}
