/* Fails or kills a process at its n-th operation that changes files below a folder, or that writes
 * to standard output or error. Loaded by LD_PRELOAD; armed by a call of `arm`, in a forked child.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[4096];
static int countdown, fault, streams_too, log_fd = -1;

/* fault: an errno above 0, or a signal's number below 0. at: counted from 1; 0 only logs. */
void arm(const char *folder, int at, int what, int streams, int log) {
    snprintf(root, sizeof root, "%s", folder);
    countdown = at, fault = what, streams_too = streams, log_fd = log;
}

static int reached(const char *operation, const char *path) {
    if (!root[0] || strncmp(path, root, strlen(root))) return 0;
    if (log_fd >= 0) {
        char line[8192];
        int length = snprintf(line, sizeof line, "%s %s\n", operation, path + strlen(root));
        syscall(SYS_write, log_fd, line, length);
    }
    if (--countdown) return 0;
    if (fault < 0) {
        kill(getpid(), -fault);
        return 0;
    }
    errno = fault;
    return 1;
}

static int at_path(const char *operation, const char *path) {
    char whole[8192], folder[4096];
    if (path[0] == '/' || !getcwd(folder, sizeof folder)) return reached(operation, path);
    snprintf(whole, sizeof whole, "%s/%s", folder, path);
    return reached(operation, whole);
}

static int at_fd(const char *operation, int fd) {
    char link[64], path[sizeof root + 16];
    if (fd == log_fd || !root[0]) return 0;
    if (fd == 1 || fd == 2) {
        if (!streams_too) return 0;
        snprintf(path, sizeof path, "%s/stream %d", root, fd);
        return reached(operation, path);
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return reached(operation, path);
}

/* A path relative to an open folder, as shutil.rmtree uses. */
static int at_entry(const char *operation, int folder, const char *path) {
    char whole[8192];
    if (folder == AT_FDCWD || path[0] == '/') return at_path(operation, path);
    snprintf(whole, sizeof whole, "/proc/self/fd/%d", folder);
    char real[4096];
    ssize_t length = readlink(whole, real, sizeof real - 1);
    if (length < 0) return 0;
    real[length] = 0;
    snprintf(whole, sizeof whole, "%s/%s", real, path);
    return reached(operation, whole);
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = va_arg(rest, mode_t);                                 \
        va_end(rest);                                                       \
        if (WRITES(flags) && at_path("open", path)) return -1;              \
        return REAL(int, name, const char *, int, ...)(path, flags, mode);  \
    }
#define OPENAT(name)                                                                \
    int name(int folder, const char *path, int flags, ...) {                        \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = va_arg(rest, mode_t);                                         \
        va_end(rest);                                                               \
        if (WRITES(flags) && at_entry("open", folder, path)) return -1;             \
        return REAL(int, name, int, const char *, int, ...)(folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define ON_FD(type, name, operation, parameters, types, arguments) \
    type name parameters {                                         \
        if (at_fd(operation, fd)) return -1;                       \
        return ((type(*) types)dlsym(RTLD_NEXT, #name)) arguments; \
    }
ON_FD(ssize_t, write, "write", (int fd, const void *data, size_t size), (int, const void *, size_t), (fd, data, size))
ON_FD(ssize_t, writev, "write", (int fd, const struct iovec *data, int count), (int, const struct iovec *, int), (fd, data, count))
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t at), (int, const void *, size_t, off64_t), (fd, data, size, at))
ON_FD(ssize_t, sendfile64, "write", (int fd, int from, off64_t *at, size_t size), (int, int, off64_t *, size_t), (fd, from, at, size))
ON_FD(ssize_t, sendfile, "write", (int fd, int from, off_t *at, size_t size), (int, int, off_t *, size_t), (fd, from, at, size))
ON_FD(int, fsync, "fsync", (int fd), (int), (fd))
ON_FD(int, fdatasync, "fsync", (int fd), (int), (fd))
ON_FD(int, ftruncate64, "truncate", (int fd, off64_t size), (int, off64_t), (fd, size))
ON_FD(int, ftruncate, "truncate", (int fd, off_t size), (int, off_t), (fd, size))

#define ON_PATH(name, operation, path, parameters, types, arguments) \
    int name parameters {                                            \
        if (at_path(operation, path)) return -1;                     \
        return ((int(*) types)dlsym(RTLD_NEXT, #name)) arguments;    \
    }
ON_PATH(rename, "rename", to, (const char *from, const char *to), (const char *, const char *), (from, to))
ON_PATH(unlink, "unlink", path, (const char *path), (const char *), (path))
ON_PATH(rmdir, "rmdir", path, (const char *path), (const char *), (path))
ON_PATH(mkdir, "mkdir", path, (const char *path, mode_t mode), (const char *, mode_t), (path, mode))
ON_PATH(link, "link", to, (const char *from, const char *to), (const char *, const char *), (from, to))
ON_PATH(symlink, "symlink", to, (const char *from, const char *to), (const char *, const char *), (from, to))
ON_PATH(truncate64, "truncate", path, (const char *path, off64_t size), (const char *, off64_t), (path, size))
ON_PATH(chmod, "chmod", path, (const char *path, mode_t mode), (const char *, mode_t), (path, mode))

#define ON_ENTRY(name, operation, folder, path, parameters, types, arguments) \
    int name parameters {                                                     \
        if (at_entry(operation, folder, path)) return -1;                     \
        return ((int(*) types)dlsym(RTLD_NEXT, #name)) arguments;             \
    }
ON_ENTRY(renameat, "rename", new, to, (int old, const char *from, int new, const char *to), (int, const char *, int, const char *), (old, from, new, to))
ON_ENTRY(renameat2, "rename", new, to, (int old, const char *from, int new, const char *to, unsigned flags), (int, const char *, int, const char *, unsigned), (old, from, new, to, flags))
ON_ENTRY(unlinkat, "unlink", folder, path, (int folder, const char *path, int flags), (int, const char *, int), (folder, path, flags))
ON_ENTRY(mkdirat, "mkdir", folder, path, (int folder, const char *path, mode_t mode), (int, const char *, mode_t), (folder, path, mode))
ON_ENTRY(linkat, "link", new, to, (int old, const char *from, int new, const char *to, int flags), (int, const char *, int, const char *, int), (old, from, new, to, flags))
