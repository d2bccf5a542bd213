// Tensor cores. By the C++ interface lane 0 holds whole matrices; by PTX each lane holds what "Matrix multiply-accumulate
// operation using mma instruction" of NVIDIA's PTX manual gives it. Products are summed in f32, one after another: how a
// tensor core rounds inside is not known and not shown.
#pragma once
#include "arithmetic.h"
#include "shared.h"

// To 10 bits after the point: as the instruction cuts; below, as the conversion rounds.
static inline float device_tf32_cut(uint32_t bits) {
    bits &= ~0x1fffu;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

namespace nvcuda {
namespace wmma {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
namespace precision {
struct tf32;
}
static inline float __float_to_tf32(float x) {
    uint32_t bits = device_bits(x);
    bool finite = (bits & 0x7f800000) != 0x7f800000;
    return device_tf32_cut(finite ? bits + 0x1000 : bits);
}
enum layout_t { mem_row_major, mem_col_major };
template <class T> struct device_element {
    using type = T;
};
template <> struct device_element<precision::tf32> {
    using type = float;
};
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M;
    static constexpr int columns = std::is_same_v<Use, matrix_a> ? K : N;
    static constexpr int num_elements = rows * columns;
    typename device_element<T>::type x[num_elements]; // row by row
};
template <class U, int M, int N, int K, class T, class L, class V>
static void fill_fragment(fragment<U, M, N, K, T, L> &f, V value) {
    for (auto &element : f.x) element = value;
}
template <class F, class P> static void device_load(F &f, const P *from, unsigned stride, bool by_columns) {
    device_sync_warp();
    if (device_current->lane == 0)
        for (int r = 0; r < F::rows; r++)
            for (int c = 0; c < F::columns; c++)
                f.x[r * F::columns + c] = by_columns ? from[c * stride + r] : from[r * stride + c];
    device_sync_warp();
}
template <class U, int M, int N, int K, class T, class L, class P>
static void load_matrix_sync(fragment<U, M, N, K, T, L> &f, const P *from, unsigned stride) {
    device_load(f, from, stride, std::is_same_v<L, col_major>);
}
template <int M, int N, int K, class T, class P>
static void load_matrix_sync(fragment<accumulator, M, N, K, T> &f, const P *from, unsigned stride, layout_t layout) {
    device_load(f, from, stride, layout == mem_col_major);
}
template <int M, int N, int K, class T, class P>
static void store_matrix_sync(P *to, const fragment<accumulator, M, N, K, T> &f, unsigned stride, layout_t layout) {
    device_sync_warp();
    if (device_current->lane == 0)
        for (int r = 0; r < M; r++)
            for (int c = 0; c < N; c++) to[layout == mem_col_major ? c * stride + r : r * stride + c] = f.x[r * N + c];
    device_sync_warp();
}
template <int M, int N, int K, class D, class A, class LA, class B, class LB, class C>
static void mma_sync(fragment<accumulator, M, N, K, D> &d, const fragment<matrix_a, M, N, K, A, LA> &a,
                     const fragment<matrix_b, M, N, K, B, LB> &b, const fragment<accumulator, M, N, K, C> &c) {
    if (device_current->lane) return;
    constexpr bool tf32 = std::is_same_v<A, precision::tf32>;
    auto read = [](auto x) {
        float f = device_float(x);
        return tf32 ? device_tf32_cut(device_bits(f)) : f;
    };
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = device_float(c.x[i * N + j]);
            for (int k = 0; k < K; k++) sum += read(a.x[i * K + k]) * read(b.x[k * N + j]);
            d.x[i * N + j] = sum;
        }
}
} // namespace wmma
} // namespace nvcuda

// The lower or upper half of a register.
template <class T> static float device_half_of(uint32_t bits, int upper) {
    uint16_t half = (uint16_t)(upper ? bits >> 16 : bits);
    T x;
    memcpy(&x, &half, 2);
    return device_float(x);
}

struct device_tf32;
// mma.sync: m16n8k16 of f16 or bf16, m16n8k8 of tf32; accumulators in f32.
template <class T>
static void device_mma(float &d0, float &d1, float &d2, float &d3, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                       uint32_t b0, uint32_t b1, float c0, float c1, float c2, float c3) {
    constexpr bool tf32 = std::is_same_v<T, device_tf32>;
    constexpr int K = tf32 ? 8 : 16;
    device_thread *me = device_current;
    auto &in = device_warps[me->warp].registers;
    const uint32_t mine[] = {a0, a1, a2, a3, b0, b1};
    device_sync_warp(); // the last exchange has been read
    memcpy(in[me->lane], mine, sizeof mine);
    device_sync_warp();
    auto a = [&](int row, int k) -> float {
        if constexpr (tf32) return device_tf32_cut(in[row % 8 * 4 + k % 4][row / 8 + 2 * (k / 4)]);
        else return device_half_of<T>(in[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)], k % 2);
    };
    auto b = [&](int k, int column) -> float {
        if constexpr (tf32) return device_tf32_cut(in[column * 4 + k % 4][4 + k / 4]);
        else return device_half_of<T>(in[column * 4 + k % 8 / 2][4 + k / 8], k % 2);
    };
    int row = me->lane / 4, column = me->lane % 4 * 2;
    float sums[] = {c0, c1, c2, c3};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < K; k++) sums[i] += a(row + i / 2 * 8, k) * b(k, column + i % 2);
    d0 = sums[0];
    d1 = sums[1];
    d2 = sums[2];
    d3 = sums[3];
}

// ldmatrix and stmatrix: N matrices of 8 rows of 8 halves; lane 8·i + r names row r of matrix i.
template <int N> static void device_rows(uint16_t *(&rows)[N * 8], uint32_t address) {
    device_thread *me = device_current;
    auto &in = device_warps[me->warp].registers;
    device_sync_warp();
    in[me->lane][0] = address;
    device_sync_warp();
    for (int i = 0; i < N * 8; i++) rows[i] = (uint16_t *)device_at(in[i][0]);
    device_sync_warp();
}
template <int N, bool TRANSPOSED> static void device_ldmatrix(uint32_t *out, uint32_t address) {
    uint16_t *rows[N * 8];
    device_rows<N>(rows, address);
    int far = device_current->lane / 4, near = device_current->lane % 4 * 2;
    for (int i = 0; i < N; i++) {
        uint16_t **m = rows + i * 8;
        uint32_t low = TRANSPOSED ? m[near][far] : m[far][near];
        uint32_t high = TRANSPOSED ? m[near + 1][far] : m[far][near + 1];
        out[i] = low | high << 16;
    }
}
template <int N, bool TRANSPOSED> static void device_stmatrix(uint32_t address, const uint32_t *in) {
    uint16_t *rows[N * 8];
    device_rows<N>(rows, address);
    int far = device_current->lane / 4, near = device_current->lane % 4 * 2;
    for (int i = 0; i < N; i++) {
        uint16_t **m = rows + i * 8;
        (TRANSPOSED ? m[near][far] : m[far][near]) = (uint16_t)in[i];
        (TRANSPOSED ? m[near + 1][far] : m[far][near + 1]) = (uint16_t)(in[i] >> 16);
    }
    device_sync_warp();
}
