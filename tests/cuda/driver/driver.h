// What the parts of this driver share. CUDA's own headers are not needed: cudarc calls functions by name, and the few
// types that cross the border are numbers and pointers.
#pragma once
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

typedef int CUresult;
typedef uint64_t CUdeviceptr;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_NOT_SUPPORTED = 801,
};

// What was asked of the device so far; printed as JSON into the file DEVICE_COUNTS names, at exit.
struct counts {
    long kernels, launches, allocations, frees, copies_in, copies_out, copies_within, waits;
    size_t bytes_in, bytes_out, bytes_within, bytes_now, bytes_peak;
};
extern struct counts counts;
extern pthread_mutex_t counts_lock;

// Says why a call is refused, and returns the error. What a real driver would let pass in silence is said too.
CUresult refuse(CUresult error, const char *format, ...) __attribute__((format(printf, 2, 3)));

// One line of the file that DEVICE_TRACE names: what was asked of the device, in order.
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A number of the environment, in any base of C.
long setting(const char *name, long otherwise);

// Whether the fault NAME=K strikes now: at the K-th call, and with NAME=K+ at every one from there.
struct fault {
    const char *name;
    long seen;
};
bool strikes(struct fault *fault);

// A device that is lost answers what computes, copies or waits with the same error until the process ends.
bool lost(void);
void lose(void);

bool has_context(void);
bool inside(CUdeviceptr at, size_t bytes);

// Of the card that is played: 80, 90 or 100.
long compute_capability(void);
long shared_memory_limit(void);
