/* A program that really uses an NVIDIA GPU, with nothing but the driver's own libcuda: `cuda MODE [MIB]`.
     once     a kernel, its results compared; ends
     busy     MIB of memory, kernels without end, deaf to SIGTERM
     keep     MIB of memory, then nothing
     managed  MIB of managed memory that a kernel has written to, then nothing
     thin     MIB of memory; then it lets go of the GPU's own node, descriptors and mappings, and keeps all else
     bare     the same, and it closes all of the driver's descriptors: mappings of the shared nodes are left
     node     a descriptor of the GPU's node, and no CUDA
     shared   descriptors of the nodes that belong to all GPUs, and no CUDA
     probe    asks every few milliseconds whether it could open the paths that follow, and tells when that changes
              (access(2) asks cgroup and permissions as open(2) does, and holds nothing)
   "ready PID" when it is so; a line "MODE: what" and status 1 where it cannot be. Build: cc -O2 -o cuda cuda.c -ldl */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define THREADS 256u
#define BLOCKS 512u

static const char *mode;
static const char text[] =
    ".version 6.3\n.target sm_75\n.address_size 64\n"
    ".visible .entry spin(.param .u64 out, .param .u32 rounds)\n"
    "{\n"
    ".reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %d<4>;\n"
    "ld.param.u64 %d1, [out]; ld.param.u32 %r1, [rounds];\n"
    "cvta.to.global.u64 %d1, %d1;\n"
    "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;\n"
    "mad.lo.u32 %r5, %r2, %r3, %r4; mul.wide.u32 %d2, %r5, 4; add.u64 %d1, %d1, %d2;\n"
    "mov.u32 %r6, 0;\n"
    "AGAIN:\n"
    "mad.lo.u32 %r5, %r5, 1664525, 1013904223; add.u32 %r6, %r6, 1;\n"
    "setp.lt.u32 %p1, %r6, %r1; @%p1 bra AGAIN;\n"
    "st.global.u32 [%d1], %r5;\n"
    "ret;\n"
    "}\n";

static void fail(const char *what, int number)
{
    printf("%s: %s: %d\n", mode, what, number);
    exit(1);
}

static void *library;

static void *symbol(const char *name)
{
    void *found = dlsym(library, name);
    if (!found)
        fail(name, -1);
    return found;
}

#define CUDA(name, ...)                                                       \
    do {                                                                      \
        int error = ((int (*)())symbol(#name))(__VA_ARGS__);                  \
        if (error)                                                            \
            fail(#name, error);                                               \
    } while (0)

static void *function;

static void start(void)
{
    int device;
    void *context, *module;
    if (!(library = dlopen("libcuda.so.1", RTLD_NOW)))
        fail(dlerror(), -1);
    CUDA(cuInit, 0u);
    CUDA(cuDeviceGet, &device, 0);
    CUDA(cuDevicePrimaryCtxRetain, &context, device);
    CUDA(cuCtxSetCurrent, context);
    CUDA(cuModuleLoadData, &module, text);
    CUDA(cuModuleGetFunction, &function, module, "spin");
}

static void spin(uint64_t at, uint32_t rounds)
{
    void *arguments[] = {&at, &rounds};
    CUDA(cuLaunchKernel, function, BLOCKS, 1u, 1u, THREADS, 1u, 1u, 0u, NULL, arguments, NULL);
    CUDA(cuCtxSynchronize);
}

static uint64_t memory(size_t mib, int managed)
{
    uint64_t at = 0;
    if (managed)
        CUDA(cuMemAllocManaged, &at, mib << 20, 1u);
    else
        CUDA(cuMemAlloc_v2, &at, mib << 20);
    return at;
}

static void compare(uint64_t at, uint32_t rounds)
{
    static uint32_t found[BLOCKS * THREADS];
    CUDA(cuMemcpyDtoH_v2, found, at, sizeof found);
    for (uint32_t i = 0; i < BLOCKS * THREADS; i++) {
        uint32_t x = i;
        for (uint32_t round = 0; round < rounds; round++)
            x = x * 1664525u + 1013904223u;
        if (x != found[i])
            fail("wrong result", (int)i);
    }
}

static void never(int number)
{
    (void)number;
    for (;;)
        pause();
}

/* CUDA's own threads would look at what is not mapped any more. */
static void stop_others(void)
{
    struct dirent *entry;
    DIR *folder = opendir("/proc/self/task");
    signal(SIGUSR2, never);
    while ((entry = readdir(folder)))
        if (atoi(entry->d_name) && atoi(entry->d_name) != getpid())
            syscall(SYS_tgkill, getpid(), atoi(entry->d_name), SIGUSR2);
    closedir(folder);
    sleep(1);
}

static int of_one_gpu(dev_t device) { return major(device) == 195 && minor(device) < 254; }

static void let_go(int all)
{
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long from[4096], to[4096];
    int count = 0, closed = 0;
    stop_others();
    while (fgets(line, sizeof line, maps) && count < 4096)
        if (strstr(line, "/dev/nvidia") && !strstr(line, "/dev/nvidiactl") && !strstr(line, "/dev/nvidia-"))
            count += sscanf(line, "%lx-%lx", &from[count], &to[count]) == 2;
    fclose(maps);
    for (int i = 0; i < count; i++)
        munmap((void *)from[i], to[i] - from[i]);
    for (int fd = 3; fd < 1024; fd++) {
        struct stat found;
        if (!fstat(fd, &found) && S_ISCHR(found.st_mode) && (of_one_gpu(found.st_rdev) || (all && major(found.st_rdev) >= 195)))
            closed += !close(fd);
    }
    printf("let go of %d mappings, %d descriptors\n", count, closed);
}

static void hold(const char *path)
{
    if (open(path, O_RDWR | O_CLOEXEC) < 0)
        fail(path, errno);
}

static void hold_node(void)
{
    struct dirent *entry;
    DIR *folder = opendir("/dev");
    int number, held = 0;
    char path[300];
    while ((entry = readdir(folder)))
        if (sscanf(entry->d_name, "nvidia%d", &number) == 1) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            hold(path);
            held++;
        }
    if (!held)
        fail("no /dev/nvidiaN", ENOENT);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void probe(char **paths)
{
    int before[16];
    memset(before, -1, sizeof before);
    for (;; usleep(4000))
        for (int i = 0; paths[i] && i < 16; i++) {
            int error = access(paths[i], R_OK | W_OK) ? errno : 0;
            double at = now();
            struct stat found;
            if (!error && (stat(paths[i], &found) || !S_ISCHR(found.st_mode)))
                error = ENODEV; /* where a node is being mounted there is an empty file for a moment */
            if (error != before[i]) {
                printf("%.4f %s %d\n", at, paths[i], error);
                fflush(stdout);
            }
            before[i] = error;
        }
}

int main(int count, char **words)
{
    size_t mib = count > 2 ? (size_t)atoi(words[2]) : 64;
    mode = count > 1 ? words[1] : "once";
    signal(SIGPIPE, SIG_DFL);
    if (!strcmp(mode, "probe"))
        probe(words + 2);
    if (!strcmp(mode, "node"))
        hold_node();
    else if (!strcmp(mode, "shared")) {
        hold("/dev/nvidiactl");
        hold("/dev/nvidia-uvm");
    } else {
        start();
        uint64_t at = memory(mib, !strcmp(mode, "managed"));
        spin(at, 1000);
        compare(at, 1000);
        if (!strcmp(mode, "once")) {
            printf("right\n");
            return 0;
        }
        if (!strcmp(mode, "thin") || !strcmp(mode, "bare"))
            let_go(!strcmp(mode, "bare"));
        if (!strcmp(mode, "busy")) {
            signal(SIGTERM, SIG_IGN);
            printf("ready %d\n", getpid());
            fflush(stdout);
            for (;;)
                spin(at, 20000000);
        }
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (;;)
        pause();
}
