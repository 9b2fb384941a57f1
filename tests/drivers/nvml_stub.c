/* A libnvidia-ml.so.1 that says what the file named by NVML_STUB says, read anew for each look. Lines:
     init ERROR
     gpu ERROR MINOR BUSID  ERROR N PID...  ERROR N PID...      (handle; compute processes; graphics processes)
   An ERROR of 0 is none, -1 one that never comes: the call does not return. It keeps the file NVML_OPENS open. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 8
#define INSUFFICIENT_SIZE 7

struct list { int error; unsigned count, pids[MOST]; };
struct gpu { int error; unsigned minor; char bus[32]; struct list lists[2]; };
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

static struct gpu gpus[MOST];
static unsigned gpu_count;
static int init_error;

static int said(int error)
{
    while (error == -1)
        pause();
    return error;
}

static void read_list(FILE *file, struct list *list)
{
    if (fscanf(file, "%d %u", &list->error, &list->count) != 2 || list->count > MOST)
        abort();
    for (unsigned i = 0; i < list->count; i++)
        if (fscanf(file, "%u", &list->pids[i]) != 1)
            abort();
}

static void read_state(void)
{
    char word[8];
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    if (!file)
        abort();
    gpu_count = 0;
    while (fscanf(file, "%7s", word) == 1) {
        if (!strcmp(word, "init")) {
            if (fscanf(file, "%d", &init_error) != 1)
                abort();
            continue;
        }
        struct gpu *gpu = &gpus[gpu_count++];
        if (fscanf(file, "%d %u %31s", &gpu->error, &gpu->minor, gpu->bus) != 3)
            abort();
        read_list(file, &gpu->lists[0]);
        read_list(file, &gpu->lists[1]);
    }
    fclose(file);
}

static int processes(struct list *list, unsigned *count, struct process *found)
{
    unsigned room = *count;
    if (said(list->error))
        return list->error;
    *count = list->count;
    if (room < list->count)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < list->count; i++)
        found[i] = (struct process){list->pids[i], 1 << 20, ~0u, ~0u};
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
    return processes(&gpu->lists[0], count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct gpu *gpu, unsigned *count, struct process *found)
{
    return processes(&gpu->lists[1], count, found);
}
