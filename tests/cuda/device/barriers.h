// cuda::barrier, and the copies that report to one: done at once, TMA with its swizzle too.
#pragma once
#include "tensor_map.h"
#include "shared.h"

namespace cuda {
enum thread_scope { thread_scope_system, thread_scope_device, thread_scope_block, thread_scope_thread };
template <thread_scope S> struct barrier {
    // The 64 bits of an mbarrier: how many arrive a phase, how many and how many bytes are missing, the phase.
    uint64_t expected : 12;
    int64_t missing : 13;
    int64_t bytes : 24;
    uint64_t phase : 15;
    using arrival_token = uint64_t;
    void device_check() {
        if (missing || bytes) return;
        missing = (int64_t)expected;
        phase++;
        device_progress();
    }
    arrival_token arrive(long n = 1) {
        arrival_token token = phase;
        missing -= n;
        device_check();
        return token;
    }
    void wait(arrival_token token) {
        while (phase == (token & 0x7fff)) device_yield();
    }
    void wait_parity(bool parity) {
        while ((phase & 1) == parity) device_yield();
    }
    void arrive_and_wait() { wait(arrive()); }
};
static_assert(sizeof(barrier<thread_scope_block>) == 8);
template <thread_scope S> static void init(barrier<S> *b, long n) {
    b->expected = (uint64_t)n;
    b->missing = n;
    b->bytes = 0;
    b->phase = 0;
}
template <thread_scope S> static void memcpy_async(void *to, const void *from, size_t n, barrier<S> &) {
    memcpy(to, from, n);
}
template <class G, thread_scope S>
static void memcpy_async(const G &, void *to, const void *from, size_t n, barrier<S> &) {
    memcpy(to, from, n);
}

namespace device {
template <thread_scope S> static uint64_t *barrier_native_handle(barrier<S> &b) { return (uint64_t *)&b; }
template <thread_scope S> static uint64_t barrier_arrive_tx(barrier<S> &b, long n, long bytes) {
    uint64_t token = b.phase;
    b.bytes += bytes;
    b.missing -= n;
    b.device_check();
    return token;
}
template <thread_scope S> static void barrier_expect_tx(barrier<S> &b, long bytes) { b.bytes += bytes; }
template <thread_scope S> static void memcpy_async_tx(void *to, const void *from, size_t n, barrier<S> &b) {
    memcpy(to, from, n);
    b.bytes -= (int64_t)n;
    b.device_check();
}

namespace experimental {
static inline void fence_proxy_async_shared_cta() {}
static inline void cp_async_bulk_commit_group() {}
template <int N> static void cp_async_bulk_wait_group() {}
template <int N> static void cp_async_bulk_wait_group_read() {}

// Bytes of the types of CUtensorMapDataType, by number.
static inline int device_bytes_of(uint32_t type) {
    static const int bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    if (type >= sizeof bytes / sizeof *bytes) device_stop("a tensor map of type %u", type);
    return bytes[type];
}
// Copies a box between global and shared memory. What lies outside the tensor is read as zero and not written. The
// swizzle goes by address: bits 4 to 6 are XORed with bits 7 to 9, as many as its width (32, 64, 128 bytes) has.
template <bool LOAD> static size_t device_box(char *shared, const void *opaque, const int *from) {
    const uint64_t *words = (const uint64_t *)opaque;
    if (words[0] != TENSOR_MAP_MARK) device_stop("TMA without a tensor map");
    const tensor_map *map = (const tensor_map *)words[1];
    if ((shared - device_shared) & 127) device_stop("TMA to an address that is no multiple of 128");
    const int bytes = device_bytes_of(map->type);
    const unsigned turned = (1u << map->swizzle) - 1;
    size_t total = (size_t)bytes;
    for (unsigned i = 0; i < map->rank; i++) total *= map->box[i];
    unsigned place[5] = {};
    for (size_t offset = 0; offset < total; offset += (size_t)bytes) {
        uint64_t global = map->at;
        bool within = true;
        for (unsigned i = 0; i < map->rank; i++) {
            long at = (long)from[i] + (long)place[i] * map->step[i];
            if (at < 0 || at >= (long)map->size[i]) within = false;
            global += (uint64_t)(at * (long)(i ? map->stride[i - 1] : (uint64_t)bytes));
        }
        size_t s = (size_t)(shared - device_shared) + offset;
        s ^= (s >> 7 & turned) << 4;
        if (LOAD && within) memcpy(device_shared + s, (const void *)global, (size_t)bytes);
        else if (LOAD) memset(device_shared + s, 0, (size_t)bytes);
        else if (within) memcpy((void *)global, device_shared + s, (size_t)bytes);
        for (unsigned i = 0; i < map->rank && ++place[i] == map->box[i]; i++) place[i] = 0;
    }
    return total;
}
#define DEVICE_COMMA ,
#define DEVICE_TMA(RANK, PARAMETERS, PLACES) \
    template <class B> \
    static void cp_async_bulk_tensor_##RANK##d_global_to_shared(void *to, const void *map, PARAMETERS, B &barrier) { \
        int from[] = {PLACES}; \
        barrier.bytes -= (int64_t)device_box<true>((char *)to, map, from); \
        barrier.device_check(); \
    } \
    static inline void cp_async_bulk_tensor_##RANK##d_shared_to_global(const void *map, PARAMETERS, const void *s) { \
        int from[] = {PLACES}; \
        device_box<false>((char *)s, map, from); \
    }
DEVICE_TMA(1, int a, a)
DEVICE_TMA(2, int a DEVICE_COMMA int b, a DEVICE_COMMA b)
DEVICE_TMA(3, int a DEVICE_COMMA int b DEVICE_COMMA int c, a DEVICE_COMMA b DEVICE_COMMA c)
DEVICE_TMA(4, int a DEVICE_COMMA int b DEVICE_COMMA int c DEVICE_COMMA int d,
           a DEVICE_COMMA b DEVICE_COMMA c DEVICE_COMMA d)
DEVICE_TMA(5, int a DEVICE_COMMA int b DEVICE_COMMA int c DEVICE_COMMA int d DEVICE_COMMA int e,
           a DEVICE_COMMA b DEVICE_COMMA c DEVICE_COMMA d DEVICE_COMMA e)
} // namespace experimental
} // namespace device
} // namespace cuda

namespace cooperative_groups {
struct device_group {};
static inline device_group this_thread_block() { return {}; }
// A cluster of one block.
struct device_cluster {
    unsigned block_rank() const { return 0; }
    device_dim block_index() const { return {0, 0, 0}; }
};
static inline device_cluster this_cluster() { return {}; }
} // namespace cooperative_groups
