/* A libnvidia-ml.so.1 that says what the file named by NVML_STUB says, read anew when it was replaced. Lines:
     init ERROR
     clock MICROSECONDS                                         (by which its clock is ahead of the host's)
     gpu ERROR MINOR BUSID  ERROR N PID...  ERROR N PID...      (handle; compute processes; graphics processes)
     value MINOR KEY ERROR A B C                                (what it is at: see KEYS; else it is not supported)
     proc MINOR PID MIB PART SHARE                              (of a listed process; MIB, SHARE -1: NVML does not say)
     span MINOR PID FROM TO SHARE                               (microseconds since 1970: when a process was how busy)
   An ERROR of 0 is none, -1 one that never comes: the call does not return. It keeps the file NVML_OPENS open.
   To open a GPU by its address takes NVML_WAKES microseconds.
   A GPU with spans is sampled every NVML_PERIOD microseconds, as the real ones are; with NVML_NO_SAMPLES that is said
   of its processes alone. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST 64
#define MOST_SPANS 4096
#define BUFFER 8192 /* samples that are kept */
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7

enum key { RATES, MEMORY, POWER, LIMIT, TEMPERATURE, SM, MEM, ECC, THROTTLE, MIG, KEYS };
static const char *const names[KEYS] = {
    "rates", "memory", "power", "limit", "temperature", "sm", "mem", "ecc", "throttle", "mig"};

typedef unsigned long long u64;
struct list { int error; unsigned count, pids[MOST]; };
struct value { int error; long long is[3]; };
struct known { unsigned pid; long long mib; unsigned part; int share; };
struct gpu {
    int error; unsigned minor; char bus[32]; struct list lists[2]; struct value values[KEYS];
    struct known known[MOST]; unsigned known_count; int has_spans;
};
struct span { unsigned minor, pid; long long from, to; unsigned share; };
struct process { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; };
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
struct sample { u64 at; union { double real; unsigned whole; u64 large; } value; };
struct memory { unsigned version; u64 total, reserved, free, used; };
struct share { unsigned pid; u64 at; unsigned sm, memory, encoder, decoder; };

static struct gpu gpus[MOST];
static struct span spans[MOST_SPANS];
static unsigned gpu_count, span_count;
static int init_error;
static long long ahead;
static struct stat read_of;

static int said(int error)
{
    while (error == -1)
        pause();
    return error;
}

static void must(int whether)
{
    if (!whether)
        abort();
}

static void read_list(FILE *file, struct list *list)
{
    must(fscanf(file, "%d %u", &list->error, &list->count) == 2 && list->count <= MOST);
    for (unsigned i = 0; i < list->count; i++)
        must(fscanf(file, "%u", &list->pids[i]) == 1);
}

static struct gpu *of_minor(FILE *file)
{
    unsigned minor;
    must(fscanf(file, "%u", &minor) == 1);
    for (unsigned i = 0; i < gpu_count; i++)
        if (gpus[i].minor == minor)
            return &gpus[i];
    abort();
}

static void read_gpu(FILE *file)
{
    struct gpu *gpu = &gpus[gpu_count++];
    memset(gpu, 0, sizeof *gpu);
    for (int key = 0; key < KEYS; key++)
        gpu->values[key].error = NOT_SUPPORTED;
    must(fscanf(file, "%d %u %31s", &gpu->error, &gpu->minor, gpu->bus) == 3);
    read_list(file, &gpu->lists[0]);
    read_list(file, &gpu->lists[1]);
}

static void read_value(FILE *file)
{
    char name[16];
    struct gpu *gpu = of_minor(file);
    must(fscanf(file, "%15s", name) == 1);
    int key = 0;
    while (strcmp(name, names[key]))
        must(++key < KEYS);
    struct value *value = &gpu->values[key];
    must(fscanf(file, "%d %lld %lld %lld", &value->error, &value->is[0], &value->is[1], &value->is[2]) == 4);
}

static void read_line(FILE *file, const char *word)
{
    if (!strcmp(word, "init"))
        must(fscanf(file, "%d", &init_error) == 1);
    else if (!strcmp(word, "clock"))
        must(fscanf(file, "%lld", &ahead) == 1);
    else if (!strcmp(word, "gpu"))
        read_gpu(file);
    else if (!strcmp(word, "value"))
        read_value(file);
    else if (!strcmp(word, "proc")) {
        struct gpu *gpu = of_minor(file);
        struct known *known = &gpu->known[gpu->known_count++];
        must(gpu->known_count < MOST);
        must(fscanf(file, "%u %lld %u %d", &known->pid, &known->mib, &known->part, &known->share) == 4);
    } else {
        struct gpu *gpu = of_minor(file);
        struct span *span = &spans[span_count++];
        must(span_count < MOST_SPANS);
        gpu->has_spans = 1;
        span->minor = gpu->minor;
        must(fscanf(file, "%u %lld %lld %u", &span->pid, &span->from, &span->to, &span->share) == 4);
    }
}

static void read_state(void)
{
    char word[8];
    struct stat now;
    must(!stat(getenv("NVML_STUB"), &now));
    if (now.st_ino == read_of.st_ino && !memcmp(&now.st_mtim, &read_of.st_mtim, sizeof now.st_mtim))
        return;
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    must(file != NULL && !fstat(fileno(file), &read_of));
    gpu_count = span_count = 0;
    while (fscanf(file, "%7s", word) == 1)
        read_line(file, word);
    fclose(file);
}

static int at(struct gpu *gpu)
{
    read_state();
    return said(init_error) ? init_error : said(gpu->error);
}

static int value(struct gpu *gpu, enum key key, struct value **found)
{
    int error = at(gpu);
    *found = &gpu->values[key];
    return error ? error : said((*found)->error);
}

static int number(struct gpu *gpu, enum key key, unsigned *found)
{
    struct value *value_of;
    int error = value(gpu, key, &value_of);
    *found = (unsigned)value_of->is[0];
    return error;
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000 + ahead;
}

static long long period(void)
{
    const char *text = getenv("NVML_PERIOD");
    return text ? atoll(text) : 166667;
}

static unsigned busy(unsigned minor, unsigned pid, long long moment)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < span_count; i++)
        if (spans[i].minor == minor && (!pid || spans[i].pid == pid) && spans[i].from <= moment && moment < spans[i].to)
            sum += spans[i].share;
    return sum > 100 ? 100 : sum;
}

static long long first_after(u64 since)
{
    long long end = now() / period(), first = (long long)since / period() + 1;
    return first < end - BUFFER ? end - BUFFER : first;
}

static struct known *known_of(struct gpu *gpu, unsigned pid)
{
    static struct known plain = {0, 1, ~0u, -1};
    for (unsigned i = 0; i < gpu->known_count; i++)
        if (gpu->known[i].pid == pid)
            return &gpu->known[i];
    return &plain;
}

static int processes(struct gpu *gpu, struct list *list, unsigned *count, struct process *found)
{
    unsigned room = *count;
    if (said(list->error))
        return list->error;
    *count = list->count;
    if (room < list->count)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < list->count; i++) {
        struct known *known = known_of(gpu, list->pids[i]);
        u64 memory = known->mib < 0 ? ~0ull : (u64)known->mib << 20;
        int split = known->part != ~0u; /* its GPU instance, and 16 times the compute instance in that */
        found[i] = (struct process){
            list->pids[i], memory, split ? known->part % 16 : ~0u, split ? known->part / 16 : ~0u};
    }
    return 0;
}

int nvmlInitWithFlags(unsigned flags)
{
    printf("a library that prints something\n");
    fflush(stdout);
    open(getenv("NVML_OPENS"), O_RDONLY);
    read_state();
    return said(init_error);
}

int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(unsigned *count)
{
    read_state();
    *count = gpu_count;
    return said(init_error); /* as where the driver was unloaded since */
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **gpu)
{
    *gpu = &gpus[index];
    return said(gpus[index].error);
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, struct gpu **gpu)
{
    read_state();
    for (unsigned i = 0; i < gpu_count; i++)
        if (!strcasecmp(gpus[i].bus + strlen(gpus[i].bus) - strlen(bus), bus)) {
            *gpu = &gpus[i];
            usleep(getenv("NVML_WAKES") ? (unsigned)atoi(getenv("NVML_WAKES")) : 0);
            return at(*gpu);
        }
    return init_error ? said(init_error) : NOT_FOUND;
}

int nvmlDeviceGetMinorNumber(struct gpu *gpu, unsigned *minor)
{
    *minor = gpu->minor;
    return 0;
}

int nvmlDeviceGetPciInfo_v3(struct gpu *gpu, struct pci *pci)
{
    memset(pci, 0, sizeof *pci);
    strcpy(pci->bus_id, gpu->bus);
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *gpu, unsigned *count, struct process *found)
{
    int error = at(gpu);
    return error ? error : processes(gpu, &gpu->lists[0], count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct gpu *gpu, unsigned *count, struct process *found)
{
    int error = at(gpu);
    return error ? error : processes(gpu, &gpu->lists[1], count, found);
}

int nvmlDeviceGetUtilizationRates(struct gpu *gpu, unsigned rates[2])
{
    struct value *found;
    int error = value(gpu, RATES, &found);
    rates[0] = gpu->has_spans ? busy(gpu->minor, 0, now()) : (unsigned)found->is[0];
    rates[1] = (unsigned)found->is[1];
    return error;
}

int nvmlDeviceGetSamples(struct gpu *gpu, int kind, u64 since, int *type, unsigned *count, struct sample *found)
{
    int error = at(gpu);
    if (error || !gpu->has_spans || getenv("NVML_NO_SAMPLES"))
        return error ? error : NOT_SUPPORTED;
    unsigned room = *count;
    *type = 1; /* unsigned */
    *count = 0;
    if (!found) {
        *count = BUFFER;
        return 0;
    }
    long long end = now() / period();
    for (long long tick = first_after(since); tick <= end && *count < room; tick++) {
        found[*count].at = (u64)(tick * period());
        found[(*count)++].value.whole = busy(gpu->minor, 0, tick * period());
    }
    return *count ? 0 : NOT_FOUND;
}

int nvmlDeviceGetProcessUtilization(struct gpu *gpu, struct share *found, unsigned *count, u64 since)
{
    int error = at(gpu), any = gpu->has_spans;
    unsigned room = *count;
    long long end = now() / period(); /* one moment for all processes */
    if (error)
        return error;
    *count = 0;
    for (unsigned i = 0; i < gpu->known_count; i++) {
        struct known *known = &gpu->known[i];
        unsigned sum = 0, ticks = 0;
        any |= known->share >= 0;
        for (long long tick = first_after(since); gpu->has_spans && tick <= end; tick++, ticks++)
            sum += busy(gpu->minor, known->pid, tick * period());
        unsigned share = gpu->has_spans ? (ticks ? (sum + ticks / 2) / ticks : 0) : known->share < 0 ? 0 : known->share;
        if (share && *count < room)
            found[*count] = (struct share){known->pid, (u64)(gpu->has_spans ? end * period() : now()), share, 0, 0, 0};
        *count += share > 0;
    }
    return !any ? NOT_SUPPORTED : !*count ? NOT_FOUND : *count > room ? INSUFFICIENT_SIZE : 0;
}

int nvmlDeviceGetMemoryInfo(struct gpu *gpu, u64 memory[3])
{
    struct value *found;
    int error = value(gpu, MEMORY, &found);
    memory[0] = (u64)found->is[0] << 20;
    memory[2] = (u64)(found->is[1] + found->is[2]) << 20;
    memory[1] = memory[0] - memory[2];
    return error;
}

int nvmlDeviceGetMemoryInfo_v2(struct gpu *gpu, struct memory *memory)
{
    struct value *found;
    int error = value(gpu, MEMORY, &found);
    memory->total = (u64)found->is[0] << 20;
    memory->used = (u64)found->is[1] << 20;
    memory->reserved = (u64)found->is[2] << 20;
    return error;
}

int nvmlDeviceGetTemperature(struct gpu *gpu, int sensor, unsigned *found) { return number(gpu, TEMPERATURE, found); }
int nvmlDeviceGetPowerUsage(struct gpu *gpu, unsigned *found) { return number(gpu, POWER, found); }
int nvmlDeviceGetEnforcedPowerLimit(struct gpu *gpu, unsigned *found) { return number(gpu, LIMIT, found); }

int nvmlDeviceGetClockInfo(struct gpu *gpu, int kind, unsigned *found)
{
    return number(gpu, kind == 1 ? SM : MEM, found);
}

int nvmlDeviceGetTotalEccErrors(struct gpu *gpu, int kind, int counter, u64 *found)
{
    struct value *value_of;
    int error = value(gpu, ECC, &value_of);
    *found = (u64)value_of->is[0];
    return error;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct gpu *gpu, u64 *found)
{
    struct value *value_of;
    int error = value(gpu, THROTTLE, &value_of);
    *found = (u64)value_of->is[0];
    return error;
}

int nvmlDeviceGetMigMode(struct gpu *gpu, unsigned *current, unsigned *pending)
{
    int error = number(gpu, MIG, current);
    *pending = *current;
    return error;
}

int nvmlDeviceGetMaxMigDeviceCount(struct gpu *gpu, unsigned *count)
{
    *count = (unsigned)gpu->values[MIG].is[1];
    return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct gpu *gpu, unsigned index, struct gpu **found)
{
    *found = gpu;
    return index < (unsigned)gpu->values[MIG].is[2] ? 0 : NOT_FOUND;
}
