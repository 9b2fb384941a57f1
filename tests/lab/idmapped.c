/* Loaded into the lab's LXD (LD_PRELOAD). LXD before 5.0.4 and 5.21.2 tries out whether a file system can be id-mapped
 * with an empty user namespace, which Linux 6.9 and newer refuse (canonical/lxd#13522): it then says that nothing can
 * be. Here such a try is made again with a namespace that maps something, as newer versions of LXD do. The mounts
 * themselves are LXD's and the kernel's own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define IDMAP 0x00100000ULL

struct attributes { unsigned long long set, clear, propagation, userns; };

static void put(pid_t child, const char *file) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", child, file);
    int map = open(path, O_WRONLY | O_CLOEXEC);
    if (map >= 0) {
        ssize_t done = write(map, "0 1000000 65536", 15);
        (void)done;
        close(map);
    }
}

static int mapped_namespace(void) {
    int up[2], down[2];
    char byte = 0, path[64];
    if (pipe2(up, O_CLOEXEC) || pipe2(down, O_CLOEXEC)) return -1;
    pid_t child = fork();
    if (child == 0) {
        close(down[1]);
        if (unshare(CLONE_NEWUSER) || write(up[1], &byte, 1) != 1) _exit(1);
        _exit(read(down[0], &byte, 1) != 0);
    }
    close(up[1]);
    close(down[0]);
    int found = -1;
    if (child > 0 && read(up[0], &byte, 1) == 1) {
        put(child, "uid_map");
        put(child, "gid_map");
        snprintf(path, sizeof(path), "/proc/%d/ns/user", child);
        found = open(path, O_RDONLY | O_CLOEXEC);
    }
    close(up[0]);
    close(down[1]);
    if (child > 0) waitpid(child, NULL, 0);
    return found;
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    va_list list;
    long a[6];
    if (!real) real = dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number != SYS_mount_setattr || result >= 0 || errno != EINVAL) return result;
    struct attributes wish;
    memcpy(&wish, (void *)a[3], sizeof(wish));
    if (!(wish.set & IDMAP)) return result;
    int namespace = mapped_namespace();
    if (namespace < 0) { errno = EINVAL; return result; }
    wish.userns = (unsigned long long)namespace;
    result = real(number, a[0], a[1], a[2], (long)&wish, (long)sizeof(wish), 0);
    int error = errno;
    close(namespace);
    errno = error;
    return result;
}
