/* Counts a process's file operations below some folders, and ends the process or fails at the n-th: see
 * fault_injection.py. Loaded with LD_PRELOAD, so that operations of Python and of C++ libraries are seen alike. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* As in fault_injection.py. */
enum { CREATE = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, MKDIR = 32, TRUNCATE = 64 };
enum { NOTHING, KILL_BEFORE, KILL_AFTER, KILL_TORN, FAIL_ONCE, FAIL_FROM };

static char root[PATH_MAX], pattern[PATH_MAX];
static int kinds, action, error_number, log_descriptor = -1;
static long target;
static atomic_long matched;

/* Starts counting. The n-th operation of these kinds below `folder`, whose path contains `part`, triggers `act`. */
void arm_faults(const char *folder, const char *part, int mask, long n, int act, int error, const char *log) {
  snprintf(root, sizeof root, "%s", folder);
  snprintf(pattern, sizeof pattern, "%s", part);
  kinds = mask, target = n, action = act, error_number = error;
  log_descriptor = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static void note(const char *mark, const char *kind, const char *path) {
  char line[PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", mark, kind, path);
  syscall(SYS_write, log_descriptor, line, length);
}

static void die(const char *kind, const char *path) {
  note("killed", kind, path);
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

static int is_below(const char *path) {
  size_t length = strlen(root);
  return log_descriptor >= 0 && !strncmp(path, root, length);
}

/* The absolute path of a name in a folder, as it was given; 0 if the operation is not counted. */
static int find_path(int folder, const char *name, char *path) {
  if (log_descriptor < 0 || !name) return 0;
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
  } else {
    char link[64];
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, path, PATH_MAX / 2);
    if (length < 0) return 0;
    snprintf(path + length, PATH_MAX - length, "/%s", name);
  }
  return is_below(path);
}

static int find_open_file(int descriptor, char *path) {
  if (log_descriptor < 0 || descriptor == log_descriptor) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

/* What to do at this operation. KILL_BEFORE does not return. */
static int at(int kind, const char *name, const char *path) {
  int saved = errno, act = NOTHING;
  note("", name, path);
  if ((kinds & kind) && action && strstr(path, pattern)) {
    long number = atomic_fetch_add(&matched, 1) + 1;
    if (number == target || (action == FAIL_FROM && number > target)) act = action;
    if (act == KILL_BEFORE || (act == KILL_TORN && kind != WRITE)) die(name, path);
    if ((act == FAIL_ONCE || act == FAIL_FROM) && number == target) note("failed", name, path);
  }
  errno = saved;
  return act;
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* An operation that either happens or does not. */
#define WHOLE(kind, name, found, call) \
  do { \
    char path[PATH_MAX]; \
    int act = (found) ? at(kind, name, path) : NOTHING; \
    if (act == FAIL_ONCE || act == FAIL_FROM) return errno = error_number, -1; \
    __auto_type result = call; \
    if (act == KILL_AFTER) die(name, path); \
    return result; \
  } while (0)

#define OPEN(name, folder, file, flags, call) \
  REAL(name); \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list list; \
    va_start(list, flags); \
    mode = va_arg(list, mode_t); \
    va_end(list); \
  } \
  WHOLE(CREATE, "create", (flags & O_CREAT) && find_path(folder, file, path), call)

int open(const char *file, int flags, ...) { OPEN(open, AT_FDCWD, file, flags, real(file, flags, mode)); }
int open64(const char *file, int flags, ...) { OPEN(open64, AT_FDCWD, file, flags, real(file, flags, mode)); }
int openat(int folder, const char *file, int flags, ...) {
  OPEN(openat, folder, file, flags, real(folder, file, flags, mode));
}
int openat64(int folder, const char *file, int flags, ...) {
  OPEN(openat64, folder, file, flags, real(folder, file, flags, mode));
}

/* A write may end in its middle: `torn` writes the first half. */
#define TRANSFER(kind, descriptor, call, torn) \
  do { \
    char path[PATH_MAX]; \
    int act = find_open_file(descriptor, path) ? at(kind, "write", path) : NOTHING; \
    if (act == FAIL_ONCE || act == FAIL_FROM) return errno = error_number, -1; \
    if (act == KILL_TORN) { \
      torn; \
      die("write", path); \
    } \
    ssize_t result = call; \
    if (act == KILL_AFTER) die("write", path); \
    return result; \
  } while (0)

ssize_t write(int descriptor, const void *data, size_t size) {
  REAL(write);
  TRANSFER(WRITE, descriptor, real(descriptor, data, size), real(descriptor, data, size / 2));
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
  REAL(pwrite);
  TRANSFER(WRITE, descriptor, real(descriptor, data, size, offset), real(descriptor, data, size / 2, offset));
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
  REAL(pwrite64);
  TRANSFER(WRITE, descriptor, real(descriptor, data, size, offset), real(descriptor, data, size / 2, offset));
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
  REAL(writev);
  TRANSFER(WRITE, descriptor, real(descriptor, parts, count), real(descriptor, parts, count / 2));
}
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
  REAL(pwritev);
  TRANSFER(WRITE, descriptor, real(descriptor, parts, count, offset), real(descriptor, parts, count / 2, offset));
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
  REAL(sendfile);
  TRANSFER(WRITE, out, real(out, in, offset, size), real(out, in, offset, size / 2));
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
  REAL(copy_file_range);
  TRANSFER(WRITE, out, real(in, from, out, to, size, flags), real(in, from, out, to, size / 2, flags));
}

int fsync(int descriptor) {
  REAL(fsync);
  WHOLE(SYNC, "sync", find_open_file(descriptor, path), real(descriptor));
}
int fdatasync(int descriptor) {
  REAL(fdatasync);
  WHOLE(SYNC, "sync", find_open_file(descriptor, path), real(descriptor));
}
int rename(const char *from, const char *to) {
  REAL(rename);
  WHOLE(RENAME, "rename", find_path(AT_FDCWD, to, path), real(from, to));
}
int renameat(int folder, const char *from, int other, const char *to) {
  REAL(renameat);
  WHOLE(RENAME, "rename", find_path(other, to, path), real(folder, from, other, to));
}
int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) {
  REAL(renameat2);
  WHOLE(RENAME, "rename", find_path(other, to, path), real(folder, from, other, to, flags));
}
int link(const char *from, const char *to) {
  REAL(link);
  WHOLE(RENAME, "rename", find_path(AT_FDCWD, to, path), real(from, to));
}
int unlink(const char *file) {
  REAL(unlink);
  WHOLE(REMOVE, "remove", find_path(AT_FDCWD, file, path), real(file));
}
int unlinkat(int folder, const char *file, int flags) {
  REAL(unlinkat);
  WHOLE(REMOVE, "remove", find_path(folder, file, path), real(folder, file, flags));
}
int rmdir(const char *file) {
  REAL(rmdir);
  WHOLE(REMOVE, "remove", find_path(AT_FDCWD, file, path), real(file));
}
int mkdir(const char *file, mode_t mode) {
  REAL(mkdir);
  WHOLE(MKDIR, "mkdir", find_path(AT_FDCWD, file, path), real(file, mode));
}
int mkdirat(int folder, const char *file, mode_t mode) {
  REAL(mkdirat);
  WHOLE(MKDIR, "mkdir", find_path(folder, file, path), real(folder, file, mode));
}
int ftruncate(int descriptor, off_t size) {
  REAL(ftruncate);
  WHOLE(TRUNCATE, "truncate", find_open_file(descriptor, path), real(descriptor, size));
}
int ftruncate64(int descriptor, off64_t size) {
  REAL(ftruncate64);
  WHOLE(TRUNCATE, "truncate", find_open_file(descriptor, path), real(descriptor, size));
}
int truncate(const char *file, off_t size) {
  REAL(truncate);
  WHOLE(TRUNCATE, "truncate", find_path(AT_FDCWD, file, path), real(file, size));
}
