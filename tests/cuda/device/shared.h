// Addresses in shared memory, as PTX counts them: numbers of 32 bits that begin somewhere above zero.
#pragma once
#include "words.h"

enum { DEVICE_SHARED_BEGINS = 4096 };
template <class T> static uint32_t __cvta_generic_to_shared(T *at) {
    size_t offset = (size_t)((const volatile char *)at - device_shared);
    if (offset >= DEVICE_SHARED_BYTES) device_stop("an address that is not in shared memory is used as one that is");
    return DEVICE_SHARED_BEGINS + (uint32_t)offset;
}
static inline uint32_t __cvta_generic_to_shared(uint64_t at) { return __cvta_generic_to_shared((char *)at); }
static inline char *device_at(uint32_t address) {
    address -= DEVICE_SHARED_BEGINS;
    if (address >= DEVICE_SHARED_BYTES) device_stop("there is no shared memory at %u", address);
    return device_shared + address;
}

// cp.async: done at once. `have` bytes come from `from`, the rest of `size` is zero.
static inline void device_copy_async(uint32_t to, uint64_t from, unsigned size, unsigned have) {
    if ((size != 4 && size != 8 && size != 16) || have > size) device_stop("cp.async of %u of %u bytes", have, size);
    char *at = device_at(to);
    if (((uintptr_t)at | (have ? from : 0)) & (size - 1)) device_stop("cp.async is not aligned to %u bytes", size);
    if (have) memcpy(at, (const void *)from, have);
    memset(at + have, 0, size - have);
}
template <class T> static void device_copy_async(uint32_t to, T *from, unsigned size, unsigned have) {
    device_copy_async(to, (uint64_t)from, size, have);
}
