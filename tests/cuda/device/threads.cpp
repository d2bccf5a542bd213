// The blocks of a launch run one after another. A block's threads run as fibers, each until it waits; where no thread
// waits, one fiber carries all of them. DEVICE_ORDER=backward runs the last thread first: a kernel that lacks a barrier
// gives one answer forward and another backward.
#include "threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

namespace {
enum { STACK_BYTES = 256 << 10, PAGE = 4096 };
alignas(1024) char shared_memory[DEVICE_SHARED_BYTES];

std::vector<device_thread *> fibers;
std::vector<device_warp> warps;
void (*kernel_body)();
void *scheduler;
unsigned started, finished, waiting, generation;
/// Fibers of this block, and whether all of them have begun: then each hands on to the next.
size_t used;
bool begun;
unsigned long events;
bool backward;

extern "C" void device_switch(void **from, void **to);
asm(".text\n.type device_switch,@function\ndevice_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov (%rsi),%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

void release_block() {
    waiting = 0;
    generation++;
    events++;
}
void release_warp(device_warp &warp) {
    warp.arrived = 0;
    warp.generation++;
    events++;
}

// A fiber's life: one thread of a block after another, as long as there are any.
void carry_threads() {
    for (;;) {
        device_thread *fiber = device_current;
        if (started >= device_thread_count) {
            fiber->idle = true;
            device_yield();
            continue;
        }
        unsigned place = backward ? device_thread_count - 1 - started : started;
        started++;
        fiber->idle = false;
        fiber->lane = place % 32;
        fiber->warp = place / 32;
        fiber->exchanges = 0;
        fiber->index = {place % device_block_size.x, place / device_block_size.x % device_block_size.y,
                        place / (device_block_size.x * device_block_size.y)};
        kernel_body();
        // Those who still wait need one thread less.
        finished++;
        events++;
        device_warp &warp = warps[device_current->warp];
        warp.live--;
        if (warp.arrived && warp.arrived >= warp.live) release_warp(warp);
        if (waiting && waiting >= device_thread_count - finished) release_block();
    }
}

device_thread *new_fiber() {
    device_thread *fiber = (device_thread *)calloc(1, sizeof *fiber);
    fiber->stack = (char *)mmap(nullptr, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber->stack == MAP_FAILED) device_stop("no memory for another thread");
    mprotect(fiber->stack, PAGE, PROT_NONE);
    // As `device_switch` leaves a stack: six registers, then where to go on; a null address keeps the alignment.
    void **top = (void **)(fiber->stack + STACK_BYTES + PAGE - 64);
    *--top = nullptr;
    *--top = (void *)carry_threads;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber->stack_pointer = top;
    fiber->idle = true;
    fiber->place = fibers.size();
    return fiber;
}

/// The first from the `from`-th on that has something to do; none where all of those wait.
device_thread *next(size_t from) {
    for (size_t i = from; i < used; i++) {
        device_thread *fiber = fibers[i];
        if (!fiber->idle && !(fiber->awaited && *fiber->awaited == fiber->seen)) return fiber;
    }
    return nullptr;
}

/// Waits until `counter` is no longer `seen`.
void wait_past(const unsigned &counter, unsigned seen) {
    device_current->awaited = &counter;
    device_current->seen = seen;
    while (counter == seen) device_yield();
    device_current->awaited = nullptr;
}

void resume(device_thread *fiber) {
    device_current = fiber;
    device_switch(&scheduler, &fiber->stack_pointer);
}

void run_block() {
    started = finished = waiting = 0;
    warps.assign((device_thread_count + 31) / 32, device_warp());
    device_warps = warps.data();
    for (unsigned i = 0; i < warps.size(); i++) {
        unsigned rest = device_thread_count - i * 32;
        warps[i].live = rest < 32 ? rest : 32;
    }
    begun = false;
    used = 0;
    while (started < device_thread_count) {
        if (used == fibers.size()) fibers.push_back(new_fiber());
        resume(fibers[used]);
        if (!fibers[used]->idle) used++;
    }
    begun = true;
    int stuck = 0;
    while (finished < device_thread_count) {
        unsigned long before = events;
        if (device_thread *first = next(0)) resume(first);
        if (events != before) {
            stuck = 0;
            continue;
        }
        // Nobody moved: a warp whose lanes took different ways goes on with those that have arrived.
        bool freed = false;
        for (device_warp &warp : warps)
            if (warp.arrived) {
                release_warp(warp);
                freed = true;
            }
        if (!freed && ++stuck > 2)
            device_stop("it hangs: %u of %u threads wait at a barrier, %u have ended", waiting, device_thread_count,
                        finished);
    }
}
} // namespace

extern "C" {
device_thread *device_current;
device_warp *device_warps;
device_dim device_block_index, device_block_size, device_grid_size;
unsigned device_thread_count;
char *const device_shared = shared_memory;
const char *device_kernel = "?";

void device_yield() {
    device_thread *own = device_current, *other = begun ? next(own->place + 1) : nullptr;
    if (other) device_current = other;
    device_switch(&own->stack_pointer, other ? &other->stack_pointer : &scheduler);
}
void device_progress() { events++; }

void device_sync_block() {
    unsigned mine = generation;
    if (++waiting >= device_thread_count - finished) {
        release_block();
        return;
    }
    wait_past(generation, mine);
}

void device_sync_warp() {
    device_warp &warp = warps[device_current->warp];
    unsigned mine = warp.generation;
    if (++warp.arrived >= warp.live) {
        release_warp(warp);
        return;
    }
    wait_past(warp.generation, mine);
}

void device_stop(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fprintf(stderr, "device: kernel %s: ", device_kernel);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
    abort();
}

void device_run(const char *name, void (*body)(), const unsigned *grid, const unsigned *block, size_t shared) {
    const char *order = getenv("DEVICE_ORDER");
    backward = order && !strcmp(order, "backward");
    device_kernel = name;
    kernel_body = body;
    device_grid_size = {grid[0], grid[1], grid[2]};
    device_block_size = {block[0], block[1], block[2]};
    device_thread_count = block[0] * block[1] * block[2];
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                device_block_index = {x, y, z};
                // Shared memory begins with anything: here with NaN.
                memset(shared_memory, 0xff, shared);
                run_block();
            }
}
}
