// The device's memory: pages of the host, each allocation with a page behind it that may not be touched. What is
// copied must lie inside one allocation. Fresh memory holds NaN in every float type, so that a kernel which reads what
// nobody wrote is seen.
//
// Faults: DEVICE_FAIL_ALLOCATION=K or K+ (no memory), DEVICE_MEMORY (bytes in all).
#include "driver.h"

#include <sys/mman.h>

enum { PAGE = 4096 };
// Larger blocks stay as the host gives them, zero: to fill them would take what the host does not have.
static const size_t POISONED_UP_TO = 256u << 20;

struct block {
    CUdeviceptr at;
    size_t bytes, mapped;
    struct block *next;
};
static struct block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault no_memory = {.name = "DEVICE_FAIL_ALLOCATION"};

bool inside(CUdeviceptr at, size_t bytes) {
    bool found = bytes == 0;
    pthread_mutex_lock(&lock);
    for (struct block *b = blocks; b && !found; b = b->next) found = at >= b->at && at + bytes <= b->at + b->bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    if (!has_context()) return refuse(CUDA_ERROR_INVALID_CONTEXT, "memory is asked for without a context");
    if (!bytes) return refuse(CUDA_ERROR_INVALID_VALUE, "no bytes are asked for");
    size_t mapped = (bytes + 2 * PAGE - 1) / PAGE * PAGE;
    pthread_mutex_lock(&lock);
    bool full = counts.bytes_now + bytes > (size_t)setting("DEVICE_MEMORY", 80l << 30) || strikes(&no_memory);
    char *at = full ? MAP_FAILED
                    : mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        pthread_mutex_unlock(&lock);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    mprotect(at + mapped - PAGE, PAGE, PROT_NONE);
    if (bytes <= POISONED_UP_TO && setting("DEVICE_POISON", 1)) memset(at, 0xff, bytes);
    struct block *block = malloc(sizeof *block);
    *block = (struct block){(CUdeviceptr)at, bytes, mapped, blocks};
    blocks = block;
    counts.allocations++;
    counts.bytes_now += bytes;
    if (counts.bytes_now > counts.bytes_peak) counts.bytes_peak = counts.bytes_now;
    pthread_mutex_unlock(&lock);
    *out = (CUdeviceptr)at;
    return CUDA_SUCCESS;
}
API CUresult cuMemAllocAsync(CUdeviceptr *out, size_t bytes, void *stream) { return cuMemAlloc_v2(out, bytes); }

API CUresult cuMemFree_v2(CUdeviceptr at) {
    pthread_mutex_lock(&lock);
    for (struct block **b = &blocks; *b; b = &(*b)->next) {
        if ((*b)->at != at) continue;
        struct block *gone = *b;
        *b = gone->next;
        counts.frees++;
        counts.bytes_now -= gone->bytes;
        munmap((void *)gone->at, gone->mapped);
        free(gone);
        pthread_mutex_unlock(&lock);
        return CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return refuse(CUDA_ERROR_INVALID_VALUE, "memory is given back that is nobody's");
}
API CUresult cuMemFreeAsync(CUdeviceptr at, void *stream) { return cuMemFree_v2(at); }

API CUresult cuMemAllocHost_v2(void **out, size_t bytes) {
    return posix_memalign(out, PAGE, bytes ? bytes : 1) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
API CUresult cuMemFreeHost(void *at) {
    free(at);
    return CUDA_SUCCESS;
}

static void count(const char *what, long *calls, size_t *bytes, size_t more) {
    trace("%s\t%zu", what, more);
    pthread_mutex_lock(&counts_lock);
    *calls += 1;
    *bytes += more;
    pthread_mutex_unlock(&counts_lock);
}
static CUresult outside(const char *what, CUdeviceptr at, size_t bytes) {
    return refuse(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: %zu bytes at %lx are not inside one allocation", what, bytes, at);
}

API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, void *stream) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    if (!inside(to, bytes)) return outside("a copy to the device", to, bytes);
    memcpy((void *)to, from, bytes);
    count("in", &counts.copies_in, &counts.bytes_in, bytes);
    return CUDA_SUCCESS;
}
API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    return cuMemcpyHtoDAsync_v2(to, from, bytes, NULL);
}
API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, void *stream) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    if (!inside(from, bytes)) return outside("a copy from the device", from, bytes);
    memcpy(to, (void *)from, bytes);
    count("out", &counts.copies_out, &counts.bytes_out, bytes);
    return CUDA_SUCCESS;
}
API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    return cuMemcpyDtoHAsync_v2(to, from, bytes, NULL);
}
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, void *stream) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    if (!inside(from, bytes)) return outside("a copy on the device, from", from, bytes);
    if (!inside(to, bytes)) return outside("a copy on the device, to", to, bytes);
    memmove((void *)to, (void *)from, bytes);
    count("within", &counts.copies_within, &counts.bytes_within, bytes);
    return CUDA_SUCCESS;
}
API CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t bytes, void *stream) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    if (!inside(at, bytes)) return outside("a fill", at, bytes);
    memset((void *)at, value, bytes);
    return CUDA_SUCCESS;
}

// CUDA_MEMCPY2D: rows of `width` bytes, on either side in the host's memory (1) or the device's (2).
struct side {
    size_t x, y;
    int kind;
    void *host;
    CUdeviceptr device;
    void *array;
    size_t pitch;
};
struct copy2d {
    struct side from, to;
    size_t width, height;
};
static char *row(const struct side *side, size_t i) {
    char *base = side->kind == 1 ? side->host : (char *)side->device;
    return base + (side->y + i) * side->pitch + side->x;
}
API CUresult cuMemcpy2DAsync_v2(const struct copy2d *copy, void *stream) {
    if (lost()) return CUDA_ERROR_LAUNCH_FAILED;
    if (!copy->height || !copy->width) return CUDA_SUCCESS;
    const struct side *sides[] = {&copy->from, &copy->to};
    for (int i = 0; i < 2; i++) {
        if (copy->height > 1 && sides[i]->pitch < copy->width)
            return refuse(CUDA_ERROR_INVALID_VALUE, "a copy of rows with a pitch below their width");
        size_t span = (copy->height - 1) * sides[i]->pitch + copy->width;
        CUdeviceptr at = (CUdeviceptr)row(sides[i], 0);
        if (sides[i]->kind == 2 && !inside(at, span)) return outside("a copy of rows", at, span);
    }
    for (size_t i = 0; i < copy->height; i++) memcpy(row(&copy->to, i), row(&copy->from, i), copy->width);
    size_t bytes = copy->width * copy->height;
    if (copy->from.kind == 1) count("in", &counts.copies_in, &counts.bytes_in, bytes);
    else if (copy->to.kind == 1) count("out", &counts.copies_out, &counts.bytes_out, bytes);
    else count("within", &counts.copies_within, &counts.bytes_within, bytes);
    return CUDA_SUCCESS;
}
