// Tensor maps for TMA. They live as long as the process: kernels hold their address. What the device does not play is
// refused: steps, interleaving, other fills than zero.
#include "driver.h"
#include "../device/tensor_map.h"

API CUresult cuTensorMapEncodeTiled(uint64_t *out, int type, unsigned rank, CUdeviceptr at, const uint64_t *size,
                                    const uint64_t *stride, const unsigned *box, const unsigned *step, int interleave,
                                    int swizzle, int promotion, int fill) {
    if (rank < 1 || rank > 5) return refuse(CUDA_ERROR_INVALID_VALUE, "a tensor map of rank %u", rank);
    if (interleave || fill || swizzle < 0 || swizzle > 3)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "a tensor map with interleave %d, fill %d, swizzle %d", interleave, fill, swizzle);
    if (at & 15) return refuse(CUDA_ERROR_INVALID_VALUE, "a tensor map at an address that is no multiple of 16");
    struct tensor_map *map = calloc(1, sizeof *map);
    map->type = (uint32_t)type;
    map->rank = rank;
    map->swizzle = (uint32_t)swizzle;
    map->at = at;
    for (unsigned i = 0; i < rank; i++) {
        if (!box[i] || box[i] > 256) return refuse(CUDA_ERROR_INVALID_VALUE, "a tensor map with a box of %u", box[i]);
        if (!size[i] || step[i] != 1) return refuse(CUDA_ERROR_NOT_SUPPORTED, "a tensor map of size %lu, step %u", size[i], step[i]);
        map->size[i] = size[i];
        map->box[i] = box[i];
        map->step[i] = step[i];
    }
    for (unsigned i = 0; i + 1 < rank; i++) {
        if (stride[i] & 15) return refuse(CUDA_ERROR_INVALID_VALUE, "a tensor map with a stride of %lu bytes", stride[i]);
        map->stride[i] = stride[i];
    }
    memset(out, 0, 128);
    out[0] = TENSOR_MAP_MARK;
    out[1] = (uint64_t)map;
    return CUDA_SUCCESS;
}
API CUresult cuTensorMapEncodeIm2col(void) { return CUDA_ERROR_NOT_SUPPORTED; }
API CUresult cuTensorMapEncodeIm2colWide(void) { return CUDA_ERROR_NOT_SUPPORTED; }
