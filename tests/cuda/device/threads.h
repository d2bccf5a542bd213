// The threads of one block, as kernels see them: who they are, and where they wait for each other. Threads are fibers
// of one thread of the processor; they change places at barriers and in operations of a warp, and nowhere else.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct device_dim {
    unsigned x, y, z;
};
struct device_thread {
    void *stack_pointer;
    char *stack;
    device_dim index;
    unsigned lane, warp, exchanges;
    bool idle;
    // Among the fibers of its block; and the counter that it waits for to be no longer what it saw.
    size_t place;
    const unsigned *awaited;
    unsigned seen;
};
// What the lanes of a warp hand to each other: two sets, so that a lane may begin the next exchange while others still
// read from the last; and the registers of a matrix product.
struct device_warp {
    unsigned arrived, generation, live;
    uint64_t slots[2][32][2];
    uint32_t registers[32][8];
};

// In threads.cpp, one for the process.
extern "C" {
extern device_thread *device_current;
extern device_warp *device_warps;
extern device_dim device_block_index, device_block_size, device_grid_size;
extern unsigned device_thread_count;
extern char *const device_shared;
extern const char *device_kernel;
void device_yield();
void device_sync_block();
void device_sync_warp();
// Something happened that another thread may wait for.
void device_progress();
[[noreturn]] void device_stop(const char *format, ...);
void device_run(const char *name, void (*body)(), const unsigned *grid, const unsigned *block, size_t shared);
}
enum { DEVICE_SHARED_BYTES = 256 << 10 };
