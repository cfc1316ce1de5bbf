/* A driver's library with one card, for tests/trainer/test_machine.py: what it tells stands in the environment.
   Names and structures are those of NVIDIA's nvml.h. */
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
static int card;
static unsigned long long given(const char *name) { const char *told = getenv(name); return told ? strtoull(told, 0, 10) : 0; }

int nvmlInit_v2(void) { return getenv("FAKE_NVML_BROKEN") ? 9 /* driver not loaded */ : 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = &card; return index == 0 ? 0 : 2 /* invalid */; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { *handle = &card; return strcmp(uuid, "GPU-fake") ? 6 /* not found */ : 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned length) { (void)handle; strncpy(name, "NVIDIA Fake 24GB", length); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *told) {
    (void)handle;
    told->total = given("FAKE_NVML_TOTAL"); told->free = given("FAKE_NVML_FREE"); told->used = told->total - told->free;
    return 0;
}
