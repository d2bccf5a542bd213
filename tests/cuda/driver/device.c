// The device as the driver describes it: an A100, an H100 or a B200 by DEVICE_SM, with DEVICE_MEMORY bytes.
#include "driver.h"

#include <stdarg.h>
#include <unistd.h>

struct counts counts;
pthread_mutex_t counts_lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_lost;
static __thread void *current_context;

CUresult refuse(CUresult error, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fputs("device: ", stderr);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
    return error;
}

void trace(const char *format, ...) {
    static FILE *out;
    static bool opened;
    pthread_mutex_lock(&counts_lock);
    if (!opened) {
        const char *path = getenv("DEVICE_TRACE");
        opened = true;
        out = path ? fopen(path, "a") : NULL;
    }
    if (out) {
        va_list rest;
        va_start(rest, format);
        vfprintf(out, format, rest);
        fputc('\n', out);
        va_end(rest);
    }
    pthread_mutex_unlock(&counts_lock);
}

long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 0) : otherwise;
}

bool strikes(struct fault *fault) {
    const char *text = getenv(fault->name);
    if (!text || !*text) return false;
    char *rest;
    long at = strtol(text, &rest, 0), seen = __sync_add_and_fetch(&fault->seen, 1);
    return *rest == '+' ? seen >= at : seen == at;
}

bool lost(void) { return is_lost; }
void lose(void) { is_lost = true; }
bool has_context(void) { return current_context != NULL; }
long compute_capability(void) { return setting("DEVICE_SM", 90); }
long shared_memory_limit(void) { return compute_capability() < 90 ? 166912 : 232448; }

static const char *card(void) {
    switch (compute_capability()) {
    case 80: return "NVIDIA A100-SXM4-80GB";
    case 90: return "NVIDIA H100 80GB HBM3";
    default: return "NVIDIA B200";
    }
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("DEVICE_COUNTS");
    // NVRTC loads the driver too, and asks nothing of it.
    FILE *out = path && counts.launches ? fopen(path, "a") : NULL;
    if (!out) return;
    fprintf(out,
            "{\"pid\":%d,\"kernels\":%ld,\"launches\":%ld,\"allocations\":%ld,\"frees\":%ld,\"bytes_peak\":%zu,"
            "\"copies_in\":%ld,\"bytes_in\":%zu,\"copies_out\":%ld,\"bytes_out\":%zu,\"copies_within\":%ld,"
            "\"bytes_within\":%zu,\"waits\":%ld}\n",
            getpid(), counts.kernels, counts.launches, counts.allocations, counts.frees, counts.bytes_peak,
            counts.copies_in, counts.bytes_in, counts.copies_out, counts.bytes_out, counts.copies_within,
            counts.bytes_within, counts.waits);
    fclose(out);
}

API CUresult cuInit(unsigned flags) { return setting("DEVICE_NONE", 0) ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }
API CUresult cuDriverGetVersion(int *version) {
    *version = (int)setting("DEVICE_DRIVER", 13000);
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetCount(int *count) {
    *count = setting("DEVICE_NONE", 0) ? 0 : 1;
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGet(int *device, int ordinal) {
    if (ordinal) return CUDA_ERROR_INVALID_DEVICE;
    *device = 0;
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "%s", card());
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetPCIBusId(char *id, int size, int device) {
    snprintf(id, size, "0000:19:00.0");
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetUuid_v2(void *uuid, int device) {
    memset(uuid, 7, 16);
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetUuid(void *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

static size_t capacity(void) { return (size_t)setting("DEVICE_MEMORY", 80l << 30); }
API CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = capacity();
    return CUDA_SUCCESS;
}
API CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
    *total = capacity();
    *available = *total - counts.bytes_now;
    return CUDA_SUCCESS;
}

// By the numbers of CUdevice_attribute; the values of the cards from NVIDIA's table of compute capabilities.
API CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    long sm = compute_capability();
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;   // threads a block, and along x and y
    case 4: *value = 64; break;                     // and along z
    case 5: *value = 2147483647; break;             // blocks along x
    case 6: case 7: *value = 65535; break;          // along y and z
    case 8: *value = 49152; break;                  // shared memory a block, unasked
    case 10: *value = 32; break;                    // warp
    case 13: *value = 1980000; break;               // kHz
    case 16: *value = sm == 80 ? 108 : sm == 90 ? 132 : 148; break; // multiprocessors
    case 36: *value = 2619000; break;               // kHz of the memory
    case 37: *value = 5120; break;                  // bits of its bus
    case 38: *value = 52428800; break;              // second cache
    case 39: *value = 2048; break;                  // threads a multiprocessor
    case 40: *value = 3; break;                     // engines for copies
    case 41: *value = 1; break;                     // one address space with the host
    case 75: *value = (int)(sm / 10); break;
    case 76: *value = (int)(sm % 10); break;
    case 81: *value = (int)shared_memory_limit() + 1024; break; // shared memory a multiprocessor
    case 82: *value = 65536; break;                 // its registers
    case 97: *value = (int)shared_memory_limit(); break; // shared memory a block that asks for it
    case 106: *value = 32; break;                   // blocks a multiprocessor
    case 115: *value = 1; break;                    // pools of memory
    default: *value = 0; refuse(0, "attribute %d is not known here", attribute);
    }
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &counts;
    return CUDA_SUCCESS;
}
API CUresult cuDevicePrimaryCtxRelease_v2(int device) { return CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(void *context) {
    current_context = context;
    return CUDA_SUCCESS;
}
API CUresult cuCtxGetCurrent(void **context) {
    *context = current_context;
    return CUDA_SUCCESS;
}
API CUresult cuCtxSynchronize(void) { return lost() ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS; }
API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return CUDA_SUCCESS;
}

// NVRTC asks the driver for tables of private calls, and does without.
API CUresult cuGetExportTable(const void **table, const void *id) {
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}

static const struct error {
    CUresult error;
    const char *name, *words;
} ERRORS[] = {
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};
static const struct error *said(CUresult error) {
    static const struct error unknown = {0, "CUDA_ERROR_UNKNOWN", "unknown error"};
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].error == error) return &ERRORS[i];
    return &unknown;
}
API CUresult cuGetErrorName(CUresult error, const char **name) {
    *name = said(error)->name;
    return CUDA_SUCCESS;
}
API CUresult cuGetErrorString(CUresult error, const char **words) {
    *words = said(error)->words;
    return CUDA_SUCCESS;
}
