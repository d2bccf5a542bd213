// Modules and launches. A module is the PTX that NVRTC made; `nvrtc.c` keeps the C++ it came from under the PTX's hash,
// and `kernel.sh` makes of that C++ a library for this processor, which a launch calls.
//
// DEVICE_KERNELS: the folder of sources and libraries. DEVICE_EXECUTE=N: the first N launches are executed, the others
// checked and counted alone, to see that kernels of real shapes compile and how often each is launched.
// Faults: DEVICE_FAIL_LAUNCH=K or K+ (this launch fails; of kernels whose name begins with
// DEVICE_FAIL_KERNEL),
// DEVICE_LOSE=K (the device is lost at the K-th launch), DEVICE_DRIVER=12080 (an old driver reads no new PTX).
#include "driver.h"
#include "hash.h"

#include <dlfcn.h>
#include <limits.h>
#include <unistd.h>

typedef void entry(void **parameters, const unsigned *grid, const unsigned *block, size_t shared);

struct kernel {
    char name[256];
    uint64_t hash;
    size_t shared_allowed;
    bool tried;
    entry *run;
};
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static struct fault failed_launch = {.name = "DEVICE_FAIL_LAUNCH"}, device_lost = {.name = "DEVICE_LOSE"};

API CUresult cuModuleLoadData(void **module, const char *ptx) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    // CUDA 13 writes PTX 9, which drivers before it do not read.
    const char *version = strstr(ptx, ".version ");
    if (version && strtol(version + 9, NULL, 10) >= 9 && setting("DEVICE_DRIVER", 13000) < 13000)
        return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    *module = strdup(ptx);
    return CUDA_SUCCESS;
}
API CUresult cuModuleUnload(void *module) { return CUDA_SUCCESS; }

// The kernel as a library for this processor, made where it is not there yet.
static entry *for_this_processor(const struct kernel *kernel) {
    const char *folder = getenv("DEVICE_KERNELS"), *home = getenv("DEVICE_HOME");
    if (!folder || !home) {
        refuse(0, "DEVICE_KERNELS and DEVICE_HOME say where kernels and device lie");
        return NULL;
    }
    char library[1024], command[3072];
    snprintf(library, sizeof library, "%s/%016lx.so", folder, kernel->hash);
    if (access(library, R_OK)) {
        snprintf(command, sizeof command, "LD_LIBRARY_PATH= '%s/kernel.sh' '%s' %016lx '%s' 1>&2", home, folder,
                 kernel->hash, kernel->name);
        if (system(command)) return NULL;
    }
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!opened) refuse(0, "%s", dlerror());
    return opened ? (entry *)dlsym(opened, "run") : NULL;
}

API CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
    char wanted[300];
    snprintf(wanted, sizeof wanted, ".entry %s(", name);
    if (!strstr(module, wanted)) return refuse(CUDA_ERROR_NOT_FOUND, "the module has no kernel %s", name);
    struct kernel *kernel = calloc(1, sizeof *kernel);
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    kernel->hash = hash(module);
    __sync_fetch_and_add(&counts.kernels, 1);
    *function = kernel;
    return CUDA_SUCCESS;
}

enum { MAX_DYNAMIC_SHARED_SIZE_BYTES = 8, SHARED_UNASKED = 49152 };
API CUresult cuFuncSetAttribute(void *function, int attribute, int value) {
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value > shared_memory_limit()) return refuse(CUDA_ERROR_INVALID_VALUE, "%d bytes of shared memory", value);
    ((struct kernel *)function)->shared_allowed = (size_t)value;
    return CUDA_SUCCESS;
}
API CUresult cuFuncGetAttribute(int *value, int attribute, void *function) {
    *value = 0;
    return CUDA_SUCCESS;
}

API CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                            unsigned bz, unsigned shared, void *stream, void **parameters, void **extra) {
    struct kernel *kernel = function;
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    if (strikes(&device_lost)) lose();
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    const char *of = getenv("DEVICE_FAIL_KERNEL");
    bool meant = !of || !strncmp(kernel->name, of, strlen(of));
    if (meant && strikes(&failed_launch)) return CUDA_ERROR_LAUNCH_FAILED;
    bool fits = gx && gy && gz && bx && by && bz && gy <= 65535 && gz <= 65535 && gx <= 2147483647u && bx <= 1024 &&
                by <= 1024 && bz <= 64 && (uint64_t)bx * by * bz <= 1024;
    if (!fits)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: no grid of %u × %u × %u blocks of %u × %u × %u", kernel->name, gx, gy,
                      gz, bx, by, bz);
    if (shared > SHARED_UNASKED && kernel->shared_allowed < shared)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %u bytes of shared memory were not asked for", kernel->name, shared);
    pthread_mutex_lock(&one_at_a_time);
    bool execute = counts.launches++ < setting("DEVICE_EXECUTE", LONG_MAX);
    trace("launch\t%s\t%016lx\t%u %u %u\t%u %u %u\t%u", kernel->name, kernel->hash, gx, gy, gz, bx, by, bz, shared);
    if (execute && !kernel->tried) {
        kernel->tried = true;
        kernel->run = for_this_processor(kernel);
    }
    CUresult error = CUDA_SUCCESS;
    if (execute && kernel->run) kernel->run(parameters, grid, block, shared);
    else if (execute)
        error = refuse(CUDA_ERROR_NOT_FOUND, "kernel %s (%016lx) cannot be made for this processor", kernel->name,
                       kernel->hash);
    pthread_mutex_unlock(&one_at_a_time);
    return error;
}
