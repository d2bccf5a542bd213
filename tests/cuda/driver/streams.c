// Streams and events. Everything is done when the call returns, so that waiting is only counted.
#include "driver.h"

#include <time.h>

API CUresult cuStreamCreate(void **stream, unsigned flags) {
    *stream = malloc(1);
    return CUDA_SUCCESS;
}
API CUresult cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return cuStreamCreate(stream, flags);
}
API CUresult cuStreamDestroy_v2(void *stream) {
    free(stream);
    return CUDA_SUCCESS;
}
API CUresult cuStreamSynchronize(void *stream) {
    trace("wait");
    __sync_fetch_and_add(&counts.waits, 1);
    return lost() ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}
API CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return CUDA_SUCCESS; }
API CUresult cuStreamBeginCapture_v2(void *stream, int mode) { return CUDA_ERROR_NOT_SUPPORTED; }
API CUresult cuStreamEndCapture(void *stream, void **graph) { return CUDA_ERROR_NOT_SUPPORTED; }
API CUresult cuStreamIsCapturing(void *stream, int *status) {
    *status = 0;
    return CUDA_SUCCESS;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
API CUresult cuEventCreate(void **event, unsigned flags) {
    *event = calloc(1, sizeof(double));
    return CUDA_SUCCESS;
}
API CUresult cuEventDestroy_v2(void *event) {
    free(event);
    return CUDA_SUCCESS;
}
API CUresult cuEventRecord(void *event, void *stream) {
    *(double *)event = now();
    return lost() ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}
API CUresult cuEventSynchronize(void *event) {
    trace("wait");
    __sync_fetch_and_add(&counts.waits, 1);
    return lost() ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}
API CUresult cuEventQuery(void *event) { return lost() ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS; }
API CUresult cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    // Never nothing: what divides by it would have no answer.
    double passed = *(double *)to - *(double *)from;
    *milliseconds = passed > 1e-3 ? (float)passed : 1e-3f;
    return CUDA_SUCCESS;
}
API CUresult cuEventElapsedTime(float *milliseconds, void *from, void *to) {
    return cuEventElapsedTime_v2(milliseconds, from, to);
}
