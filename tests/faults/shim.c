/* Makes one system call go wrong: the N-th of some kinds, on files below a folder or on sockets.
 *
 * LD_PRELOAD puts these functions before those of the C library. They go to the kernel, until
 * fault_arm says otherwise; so a process prepares in peace, forks, and its child arms itself.
 * What the C library calls inside itself (the stdio of fopen) does not come by here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LISTEN, FAIL, HALF, RAISE, SHRINK, CHANGE, SILENCE }; /* shim.py has these numbers too */
enum { FAILS = 1, HALVES = 2, DIES = 4, ENDS = 8 };

static struct {
    char root[PATH_MAX], source[PATH_MAX], calls[256];
    int nth, action, value, lasts, log;
} plan;
static atomic_int seen;
static atomic_bool armed;

/* Kinds stand between commas: ",write,rename,". The source is what SHRINK and CHANGE lay hands on;
 * log is a descriptor that gets a line for every call, or -1. */
void fault_arm(const char *root, const char *calls, int nth, int action, int value, int lasts,
               const char *source, int log)
{
    snprintf(plan.root, sizeof plan.root, "%s", root);
    snprintf(plan.calls, sizeof plan.calls, "%s", calls);
    snprintf(plan.source, sizeof plan.source, "%s", source);
    plan.nth = nth, plan.action = action, plan.value = value, plan.lasts = lasts, plan.log = log;
    seen = 0;
    armed = 1;
}

/* Let calls alone again; false if the one that was to go wrong has not come. */
int fault_disarm(void)
{
    int has_come = !armed || plan.action == LISTEN || seen >= plan.nth;
    armed = 0;
    return has_come;
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* What a descriptor or a path stands for; false if it is none of ours. */
static int is_ours(int fd, const char *path, char *place)
{
    char link[64], base[PATH_MAX] = "";
    if (path == NULL || path[0] != '/') {
        if (fd == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1) < 0)
            return 0;
    }
    snprintf(place, 2 * PATH_MAX, path == NULL ? "%s" : *base ? "%s/%s" : "%s%s", base, path);
    return !strncmp(place, plan.root, strlen(plan.root)) || !strncmp(place, "socket:", 7);
}

static void meddle(int shrinks)
{
    struct stat now;
    int fd = syscall(SYS_openat, AT_FDCWD, plan.source, O_RDWR);
    if (fd < 0 || fstat(fd, &now) < 0)
        return;
    if (shrinks)
        syscall(SYS_ftruncate, fd, now.st_size / 3);
    else
        syscall(SYS_pwrite64, fd, "changed", 7, now.st_size / 2);
    syscall(SYS_close, fd);
}

static int fault(const char *call, int fd, const char *path)
{
    char place[2 * PATH_MAX], line[3 * PATH_MAX], kind[40];
    if (!armed || !is_ours(fd, path, place))
        return 0;
    if (plan.log >= 0) {
        int length = snprintf(line, sizeof line, "%s\t%s\n", call, place);
        syscall(SYS_write, plan.log, line, length);
    }
    snprintf(kind, sizeof kind, ",%s,", call);
    if (plan.action == LISTEN || strstr(plan.calls, kind) == NULL)
        return 0;
    int count = ++seen;
    if (count != plan.nth && !(plan.lasts && count > plan.nth))
        return 0;
    switch (plan.action) {
    case FAIL:
        if (plan.value == ECONNRESET)
            syscall(SYS_shutdown, fd, SHUT_RDWR); /* a connection that is reset stays so */
        errno = plan.value;
        return FAILS;
    case HALF:
        return HALVES;
    case SILENCE:
        syscall(SYS_shutdown, fd, SHUT_RDWR);
        return ENDS;
    case RAISE:
        if (plan.value == SIGKILL)
            return DIES;
        syscall(SYS_kill, getpid(), plan.value);
        return 0;
    default:
        meddle(plan.action == SHRINK);
        return 0;
    }
}

/* A process that dies in a call that moves bytes has moved half of them. */
#define SIZED(call, fd, count, real)                                                              \
    ({                                                                                            \
        int verdict = fault(call, fd, NULL);                                                \
        if (verdict & (HALVES | DIES))                                                            \
            count = (count + 1) / 2;                                                              \
        ssize_t done = verdict & FAILS ? -1 : verdict & ENDS ? 0 : (real);                        \
        if (verdict & DIES)                                                                       \
            die();                                                                                \
        done;                                                                                     \
    })
#define PLAIN(call, fd, path, real)                                                               \
    ({                                                                                            \
        int verdict = fault(call, fd, path);                                                  \
        if (verdict & DIES)                                                                       \
            die();                                                                                \
        verdict & FAILS ? -1 : (int)(real);                                                       \
    })

static int opened(int fd, const char *path, int flags, mode_t mode)
{
    const char *call = flags & (O_CREAT | O_WRONLY | O_RDWR) ? "create" : "open";
    return PLAIN(call, fd, path, syscall(SYS_openat, fd, path, flags, mode));
}

#define OPEN(name, first, fd)                                                                     \
    int name(first const char *path, int flags, ...)                                              \
    {                                                                                             \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;                 \
        va_end(rest);                                                                             \
        return opened(fd, path, flags, mode);                                                     \
    }
#define NONE
#define FD int at,
OPEN(open, NONE, AT_FDCWD)
OPEN(open64, NONE, AT_FDCWD)
OPEN(openat, FD, at)
OPEN(openat64, FD, at)

ssize_t read(int fd, void *to, size_t count)
{
    return SIZED("read", fd, count, syscall(SYS_read, fd, to, count));
}

ssize_t write(int fd, const void *from, size_t count)
{
    return SIZED("write", fd, count, syscall(SYS_write, fd, from, count));
}

#define PREAD(name)                                                                               \
    ssize_t name(int fd, void *to, size_t count, off_t at)                                        \
    {                                                                                             \
        return SIZED("read", fd, count, syscall(SYS_pread64, fd, to, count, at));                 \
    }
#define PWRITE(name)                                                                              \
    ssize_t name(int fd, const void *from, size_t count, off_t at)                                \
    {                                                                                             \
        return SIZED("write", fd, count, syscall(SYS_pwrite64, fd, from, count, at));             \
    }
PREAD(pread)
PREAD(pread64)
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *at, size_t count, unsigned flags)
{
    return SIZED("copy", fd, count,
                 syscall(SYS_copy_file_range, from, start, fd, at, count, flags));
}

#define SENDFILE(name)                                                                            \
    ssize_t name(int fd, int from, off_t *start, size_t count)                                    \
    {                                                                                             \
        return SIZED("copy", fd, count, syscall(SYS_sendfile, fd, from, start, count));           \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

#define TRUNCATE(name)                                                                            \
    int name(int fd, off_t size)                                                                  \
    {                                                                                             \
        return PLAIN("truncate", fd, NULL, syscall(SYS_ftruncate, fd, size));               \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int fsync(int fd) { return PLAIN("fsync", fd, NULL, syscall(SYS_fsync, fd)); }

int flock(int fd, int how) { return PLAIN("flock", fd, NULL, syscall(SYS_flock, fd, how)); }

int renameat2(int fd, const char *path, int to_fd, const char *to, unsigned flags)
{
    const char *call = flags & RENAME_EXCHANGE ? "exchange" : "rename";
    return PLAIN(call, fd, path, syscall(SYS_renameat2, fd, path, to_fd, to, flags));
}

int renameat(int fd, const char *path, int to_fd, const char *to)
{
    return renameat2(fd, path, to_fd, to, 0);
}

int rename(const char *path, const char *to)
{
    return renameat2(AT_FDCWD, path, AT_FDCWD, to, 0);
}

int mkdirat(int fd, const char *path, mode_t mode)
{
    return PLAIN("mkdir", fd, path, syscall(SYS_mkdirat, fd, path, mode));
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int fd, const char *path, int flags)
{
    return PLAIN("unlink", fd, path, syscall(SYS_unlinkat, fd, path, flags));
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int linkat(int fd, const char *path, int to_fd, const char *to, int flags)
{
    return PLAIN("link", fd, path, syscall(SYS_linkat, fd, path, to_fd, to, flags));
}

int link(const char *path, const char *to) { return linkat(AT_FDCWD, path, AT_FDCWD, to, 0); }

int symlinkat(const char *path, int fd, const char *to)
{
    return PLAIN("link", fd, to, syscall(SYS_symlinkat, path, fd, to));
}

int symlink(const char *path, const char *to) { return symlinkat(path, AT_FDCWD, to); }

int fchmod(int fd, mode_t mode)
{
    return PLAIN("chmod", fd, NULL, syscall(SYS_fchmod, fd, mode));
}

int chmod(const char *path, mode_t mode)
{
    return PLAIN("chmod", AT_FDCWD, path, syscall(SYS_fchmodat, AT_FDCWD, path, mode));
}

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    return PLAIN("connect", fd, NULL, syscall(SYS_connect, fd, to, length));
}

ssize_t send(int fd, const void *from, size_t count, int flags)
{
    return SIZED("send", fd, count, syscall(SYS_sendto, fd, from, count, flags, NULL, 0));
}

ssize_t recv(int fd, void *to, size_t count, int flags)
{
    return SIZED("receive", fd, count, syscall(SYS_recvfrom, fd, to, count, flags, NULL, NULL));
}
