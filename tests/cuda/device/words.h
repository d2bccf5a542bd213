// CUDA's words for C++: who may call what, and the variables and functions of a thread, block and warp.
#pragma once
#include "threads.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <math.h>
#include <string.h>
#include <type_traits>

#undef __global__
#undef __device__
#undef __host__
#undef __grid_constant__
#undef __shared__
#undef __forceinline__
#undef __align__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)

#define threadIdx (device_current->index)
#define blockIdx device_block_index
#define blockDim device_block_size
#define gridDim device_grid_size
static const int warpSize = 32;

static inline void __syncthreads() { device_sync_block(); }
static inline void __syncwarp(unsigned = ~0u) { device_sync_warp(); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline unsigned __activemask() { return ~0u; }

// What the lane `from` handed in. Each exchange waits once: the two sets of slots take turns.
template <class T> static T device_exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= 16);
    device_thread *me = device_current;
    auto &slots = device_warps[me->warp].slots[me->exchanges++ & 1];
    memcpy(slots[me->lane], &value, sizeof value);
    device_sync_warp();
    T taken;
    memcpy(&taken, slots[from & 31], sizeof taken);
    return taken;
}
template <class T> static T __shfl_sync(unsigned, T v, unsigned lane) { return device_exchange(v, lane); }
template <class T> static T __shfl_xor_sync(unsigned, T v, unsigned mask) {
    return device_exchange(v, device_current->lane ^ mask);
}
template <class T> static T __shfl_up_sync(unsigned, T v, unsigned delta) {
    unsigned lane = device_current->lane;
    return device_exchange(v, lane >= delta ? lane - delta : lane);
}
template <class T> static T __shfl_down_sync(unsigned, T v, unsigned delta) {
    unsigned lane = device_current->lane;
    return device_exchange(v, lane + delta < 32 ? lane + delta : lane);
}
static inline unsigned __ballot_sync(unsigned, int value) {
    device_thread *me = device_current;
    auto &slots = device_warps[me->warp].slots[me->exchanges++ & 1];
    slots[me->lane][0] = value != 0;
    device_sync_warp();
    unsigned rest = device_thread_count - me->warp * 32, votes = 0;
    for (unsigned i = 0; i < (rest < 32 ? rest : 32); i++) votes |= (unsigned)(slots[i][0] & 1) << i;
    return votes;
}
static inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
static inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, !value) == 0; }
static inline bool device_elect() { return device_current->lane == 0; }
