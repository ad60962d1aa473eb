/* Loaded before the C library (LD_PRELOAD): one of the changes that a process makes to files below a folder goes wrong,
 * whoever makes it.
 *
 *   FAULT_DIR   the folder, without a slash at its end
 *   FAULT_LOG   a file outside of it: a line for each change, so that they can be counted
 *   FAULT_AT    which change, counted from 0; not set: none
 *   FAULT_KIND  error: it fails with EIO. short: half is written, then ENOSPC; what writes nothing fails with ENOSPC.
 *               stop: the process is killed instead
 *
 * Changes are writes, syncs, new lengths, new names and removals. Opening is none of them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *dir, *kind;
static size_t dir_length;
static long at = -1, passed;
static int log_fd = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("FAULT_LOG"), *which = getenv("FAULT_AT");
    kind = getenv("FAULT_KIND");
    dir = getenv("FAULT_DIR");
    dir_length = dir ? strlen(dir) : 0;
    if (which) at = atol(which);
    if (log) log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int inside(const char *path) {
    return dir && path && !strncmp(path, dir, dir_length) && (path[dir_length] == '/' || !path[dir_length]);
}

static int inside_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!dir) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

/* Whether this change goes wrong; a process that is to be stopped does not come back. */
static int wrong(const char *what) {
    char line[64];
    long now = __atomic_fetch_add(&passed, 1, __ATOMIC_SEQ_CST);
    int length = snprintf(line, sizeof line, "%ld %s\n", now, what);
    if (log_fd >= 0) (void)!REAL(write)(log_fd, line, (size_t)length);
    if (now != at) return 0;
    if (kind && !strcmp(kind, "stop")) {
        kill(getpid(), SIGKILL);
        pause();
    }
    return 1;
}

static int is_short(void) { return kind && !strcmp(kind, "short"); }

static int fail(void) {
    errno = is_short() ? ENOSPC : EIO;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (fd == log_fd || !inside_fd(fd) || !wrong("write")) return REAL(write)(fd, bytes, count);
    if (!is_short() || count < 2) return fail();
    /* The rest is refused when it is tried: the disk is full from here on. */
    at += 1;
    return REAL(write)(fd, bytes, count / 2);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    if (!inside_fd(fd) || !wrong("pwrite")) return REAL(pwrite64)(fd, bytes, count, offset);
    if (!is_short() || count < 2) return fail();
    at += 1;
    return REAL(pwrite64)(fd, bytes, count / 2, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return pwrite64(fd, bytes, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return inside_fd(fd) && wrong("writev") ? fail() : REAL(writev)(fd, parts, count);
}

int fsync(int fd) { return inside_fd(fd) && wrong("fsync") ? fail() : REAL(fsync)(fd); }

int fdatasync(int fd) { return inside_fd(fd) && wrong("fdatasync") ? fail() : REAL(fdatasync)(fd); }

int ftruncate64(int fd, off64_t length) {
    return inside_fd(fd) && wrong("ftruncate") ? fail() : REAL(ftruncate64)(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int rename(const char *from, const char *to) {
    return (inside(from) || inside(to)) && wrong("rename") ? fail() : REAL(rename)(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return (inside(from) || inside(to)) && wrong("rename") ? fail() : REAL(renameat)(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags) {
    return (inside(from) || inside(to)) && wrong("rename") ? fail()
                                                          : REAL(renameat2)(from_dir, from, to_dir, to, flags);
}

int unlink(const char *path) { return inside(path) && wrong("unlink") ? fail() : REAL(unlink)(path); }

int unlinkat(int folder, const char *path, int flags) {
    return (path[0] == '/' ? inside(path) : inside_fd(folder)) && wrong("unlink") ? fail()
                                                                                 : REAL(unlinkat)(folder, path, flags);
}

int mkdir(const char *path, mode_t mode) { return inside(path) && wrong("mkdir") ? fail() : REAL(mkdir)(path, mode); }
