/* Breaks a chosen operation on files below a folder: the process dies there, loses what was never
   flushed, or is told that the disk is full from there on. Loaded with LD_PRELOAD; the harness arms
   it in a child of its own. Counted are the operations that change something on a disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, POWER, FULL };
enum { FILES = 4096, DIRTY = 512 };

static char root[PATH_MAX];
static size_t root_length;
static int mode, code;
static long target, seen;
static char watched[FILES];
static char dirty[DIRTY][PATH_MAX];
static off_t flushed[DIRTY]; /* how much of them is on the disk */

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

void fault_arm(const char *folder, int how, long number, int error) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    mode = how, target = number, code = error, seen = 0;
}

long fault_count(void) { return seen; }

static int below(const char *path) {
    return root_length && path && !strncmp(path, root, root_length);
}

static int below_at(int folder, const char *path) {
    if (path && path[0] == '/') return below(path);
    return folder >= 0 && folder < FILES && watched[folder];
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return 1;
}

static void mark(const char *path, int is_dirty) {
    int empty = -1;
    for (int i = 0; i < DIRTY; i++) {
        if (!dirty[i][0]) { if (empty < 0) empty = i; continue; }
        if (strcmp(dirty[i], path)) continue;
        if (!is_dirty) dirty[i][0] = 0;
        return;
    }
    if (!is_dirty || empty < 0) return;
    struct stat now;
    flushed[empty] = stat(path, &now) ? 0 : now.st_size;
    strncpy(dirty[empty], path, PATH_MAX - 1);
}

static void moved(const char *from, const char *to) {
    for (int i = 0; i < DIRTY; i++)
        if (dirty[i][0] && !strcmp(dirty[i], from)) strncpy(dirty[i], to, PATH_MAX - 1);
}

static void die(void) {
    if (mode == POWER)
        for (int i = 0; i < DIRTY; i++)
            if (dirty[i][0] && truncate(dirty[i], flushed[i])) errno = 0;
    kill(getpid(), SIGKILL);
}

/* Say whether this operation is to fail; do not come back if the process is to die. */
static int breaks(void) {
    long n = ++seen;
    if (mode == FULL && target && n >= target) { errno = code; return 1; }
    if (target && n == target && (mode == KILL || mode == POWER)) die();
    return 0;
}

static int opened(int fd, const char *path, int folder) {
    if (fd >= 0 && fd < FILES) watched[fd] = below_at(folder, path);
    return fd;
}

static int makes(int flags) { return flags & (O_CREAT | O_TRUNC); }

#define OPEN(name)                                                                    \
    int name(const char *path, int flags, ...) {                                      \
        REAL(name);                                                                   \
        va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        if (makes(flags) && below(path) && breaks()) return -1;                       \
        return opened(real(path, flags, bits), path, AT_FDCWD);                \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                  \
    int name(int folder, const char *path, int flags, ...) {                          \
        REAL(name);                                                                   \
        va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        if (makes(flags) && below_at(folder, path) && breaks()) return -1;            \
        return opened(real(folder, path, flags, bits), path, folder);          \
    }
OPENAT(openat)
OPENAT(openat64)

static int torn(int fd) {
    char path[PATH_MAX];
    if (fd < 0 || fd >= FILES || !watched[fd]) return 0;
    if (path_of(fd, path)) mark(path, 1);
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (torn(fd)) {
        int due = target && seen + 1 == target && mode != COUNT;
        if (due && size > 1 && real(fd, data, size / 2) < 0) errno = code; /* half of it arrives */
        if (breaks()) return -1;
    }
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    if (torn(fd) && breaks()) return -1;
    return real(fd, parts, n);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    if (torn(fd) && breaks()) return -1;
    return real(fd, data, size, at);
}

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FILES) watched[fd] = 0;
    return real(fd);
}

int fsync(int fd) {
    REAL(fsync);
    char path[PATH_MAX];
    int ours = fd >= 0 && fd < FILES && watched[fd];
    if (ours && mode != FULL) breaks();
    if (ours && path_of(fd, path)) mark(path, 0);
    return real(fd);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (below(to) && mode != FULL) breaks();
    int done = real(from, to);
    if (!done && below(to)) moved(from, to);
    return done;
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    if (below_at(b, to) && mode != FULL) breaks();
    return real(a, from, b, to);
}

int unlink(const char *path) {
    REAL(unlink);
    if (below(path) && mode != FULL) breaks();
    if (below(path)) mark(path, 0);
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    if (below_at(folder, path) && mode != FULL) breaks();
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    if (below(path) && mode != FULL) breaks();
    return real(path);
}

int mkdir(const char *path, mode_t bits) {
    REAL(mkdir);
    if (below(path) && breaks()) return -1;
    return real(path, bits);
}
