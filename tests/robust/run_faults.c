/* Lets the operating system refuse the Kth call of one kind below one folder.

   LD_PRELOAD=shim.so SHIM_FOLDER=/run SHIM_KIND=write SHIM_CALL=3 SHIM_ERRNO=28
   SHIM_RANK=1. With SHIM_LASTING=1 all later ones are refused, too, as on a full disk.
   A refused write has written half of what it was given. With SHIM_COUNTS=PREFIX, every
   process leaves the number of its calls of each kind. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, RENAME, FSYNC, UNLINK, KINDS };
static const char *names[KINDS] = {"open", "read", "write", "rename", "fsync", "unlink"};
static long calls[KINDS];
static const char *folder, *counts;
static int kind = -1, number, lasting, halved;
static long chosen;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

__attribute__((constructor)) static void begin(void) {
    const char *rank = getenv("PMI_RANK");
    if (!rank) rank = getenv("OMPI_COMM_WORLD_RANK");
    folder = getenv("SHIM_FOLDER");
    counts = getenv("SHIM_COUNTS");
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(names[i], setting("SHIM_KIND"))) kind = i;
    int all = !strcmp("all", setting("SHIM_RANK"));
    if (!all && strcmp(rank ? rank : "0", setting("SHIM_RANK"))) kind = -1;
    chosen = atol(setting("SHIM_CALL"));
    number = atoi(setting("SHIM_ERRNO"));
    lasting = atoi(setting("SHIM_LASTING"));
}

__attribute__((destructor)) static void end(void) {
    long all = 0;
    char path[PATH_MAX], text[256] = "";
    for (int i = 0; i < KINDS; i++) {
        all += calls[i];
        sprintf(text + strlen(text), "%s %ld\n", names[i], calls[i]);
    }
    if (!counts || !all) return;
    const char *rank = getenv("PMI_RANK");
    snprintf(path, sizeof path, "%s-%s", counts, rank ? rank : "0");
    int file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (syscall(SYS_write, file, text, strlen(text)) < 0) return;
    syscall(SYS_close, file);
}

static int below(const char *path) {
    return folder && path && !strncmp(path, folder, strlen(folder));
}

static int ours(int file) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = folder ? readlink(name, path, sizeof path - 1) : -1;
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int refused(int which) {
    long now = __sync_add_and_fetch(&calls[which], 1);
    if (which != kind || now < chosen || (now > chosen && !lasting)) return 0;
    errno = number;
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPENER(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        if (below(path) && refused(OPEN)) return -1; \
        return real(path, flags, mode); \
    }
OPENER(open)
OPENER(open64)

#define READER(name, list, args) \
    ssize_t name list { \
        REAL(name); \
        if (ours(file) && refused(READ)) return -1; \
        return real args; \
    }
READER(read, (int file, void *data, size_t size), (file, data, size))
READER(pread, (int file, void *data, size_t size, off_t at), (file, data, size, at))
READER(pread64, (int file, void *data, size_t size, off64_t at), (file, data, size, at))

/* Half of it is written; what is left is refused. */
#define WRITER(name, list, args) \
    ssize_t name list { \
        REAL(name); \
        if (ours(file)) { \
            if (halved) { halved = lasting; errno = number; return -1; } \
            if (refused(WRITE)) { \
                size /= 2; \
                halved = 1; \
                if (!size) { halved = lasting; return -1; } \
            } \
        } \
        return real args; \
    }
WRITER(write, (int file, const void *data, size_t size), (file, data, size))
WRITER(pwrite, (int file, const void *data, size_t size, off_t at),
       (file, data, size, at))
WRITER(pwrite64, (int file, const void *data, size_t size, off64_t at),
       (file, data, size, at))

int rename(const char *from, const char *to) {
    REAL(rename);
    return below(from) && refused(RENAME) ? -1 : real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    return below(from) && refused(RENAME) ? -1 : real(a, from, b, to);
}
int fsync(int file) {
    REAL(fsync);
    return ours(file) && refused(FSYNC) ? -1 : real(file);
}
int unlink(const char *path) {
    REAL(unlink);
    return below(path) && refused(UNLINK) ? -1 : real(path);
}
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    int here = at == AT_FDCWD ? below(path) : ours(at);
    return here && refused(UNLINK) ? -1 : real(at, path, flags);
}
