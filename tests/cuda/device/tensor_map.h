// What a tensor map says. CUDA's is 128 opaque bytes that the device alone reads; here they hold a mark and the address
// of one of these, so that driver and kernels agree.
#pragma once
#include <stdint.h>

enum { TENSOR_MAP_MARK = 0x74656e73 };
struct tensor_map {
    uint32_t type, rank, swizzle;
    uint64_t at, size[5], stride[5]; // elements; bytes, from the second axis on
    uint32_t box[5], step[5];
};
