// Functions of numbers that CUDA has and C++ has not, or has under another name; the fast ones are exact here.
#pragma once
#include "words.h"

#define DEVICE_LEAST_AND_GREATEST(T) \
    static inline T min(T a, T b) { return b < a ? b : a; } \
    static inline T max(T a, T b) { return a < b ? b : a; }
DEVICE_LEAST_AND_GREATEST(int)
DEVICE_LEAST_AND_GREATEST(unsigned)
DEVICE_LEAST_AND_GREATEST(long)
DEVICE_LEAST_AND_GREATEST(unsigned long)
DEVICE_LEAST_AND_GREATEST(long long)
DEVICE_LEAST_AND_GREATEST(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned turned = 0;
    for (int i = 0; i < 32; i++) turned |= (x >> i & 1) << (31 - i);
    return turned;
}
static inline unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
#undef __expf
#undef __logf
#undef __sinf
#undef __cosf
#undef __powf
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanhf(x) tanhf(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }

// Threads never run at the same time, so that nothing comes between reading and writing.
template <class T, class U> static T atomicAdd(T *at, U v) { T old = *at; *at = old + (T)v; return old; }
template <class T, class U> static T atomicMin(T *at, U v) { T old = *at; if ((T)v < old) *at = v; return old; }
template <class T, class U> static T atomicMax(T *at, U v) { T old = *at; if (old < (T)v) *at = v; return old; }
template <class T, class U> static T atomicAnd(T *at, U v) { T old = *at; *at = old & v; return old; }
template <class T, class U> static T atomicOr(T *at, U v) { T old = *at; *at = old | v; return old; }
template <class T, class U> static T atomicXor(T *at, U v) { T old = *at; *at = old ^ v; return old; }
template <class T, class U> static T atomicExch(T *at, U v) { T old = *at; *at = v; return old; }
template <class T, class U, class V> static T atomicCAS(T *at, U expected, V v) {
    T old = *at;
    if (old == (T)expected) *at = v;
    return old;
}
static inline float device_max_nan(float a, float b) { return isnan(a) || isnan(b) ? NAN : fmaxf(a, b); }
static inline float device_min_nan(float a, float b) { return isnan(a) || isnan(b) ? NAN : fminf(a, b); }

static inline float device_float(float x) { return x; }
static inline float device_float(__half x) { return __half2float(x); }
static inline float device_float(__nv_bfloat16 x) { return __bfloat162float(x); }
static inline uint32_t device_bits(uint32_t x) { return x; }
static inline uint32_t device_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

// What the headers of the half types give to the device alone: by way of f32, rounded once.
static inline float device_reciprocal(float x) { return 1.0f / x; }
static inline float device_inverse_root(float x) { return 1.0f / sqrtf(x); }
#define DEVICE_HALF(name, function) \
    static inline __half h##name(__half x) { return __float2half(function(__half2float(x))); } \
    static inline __nv_bfloat16 h##name(__nv_bfloat16 x) { return __float2bfloat16(function(__bfloat162float(x))); } \
    static inline __half2 h2##name(__half2 v) { return __half2(h##name(v.x), h##name(v.y)); } \
    static inline __nv_bfloat162 h2##name(__nv_bfloat162 v) { return __nv_bfloat162(h##name(v.x), h##name(v.y)); }
DEVICE_HALF(exp, expf)
DEVICE_HALF(exp2, exp2f)
DEVICE_HALF(log, logf)
DEVICE_HALF(log2, log2f)
DEVICE_HALF(sqrt, sqrtf)
DEVICE_HALF(rsqrt, device_inverse_root)
DEVICE_HALF(rcp, device_reciprocal)
DEVICE_HALF(sin, sinf)
DEVICE_HALF(cos, cosf)
DEVICE_HALF(tanh, tanhf)
DEVICE_HALF(ceil, ceilf)
DEVICE_HALF(floor, floorf)
DEVICE_HALF(rint, rintf)
DEVICE_HALF(trunc, truncf)
static inline __half __hfma(__half a, __half b, __half c) {
    return __float2half(fmaf(__half2float(a), __half2float(b), __half2float(c)));
}
static inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
    return __float2bfloat16(fmaf(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return __half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
static inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
    return __nv_bfloat162(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
