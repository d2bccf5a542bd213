"""The software device alone: each thing that it plays, by kernels whose answer is known. run.sh python3 selftest.py"""

import ctypes as c
import os
import random
import struct
import subprocess
import sys
import unittest

BUILT = os.environ["DEVICE_BUILT"]
INCLUDE = os.environ["CUDA_PATH"] + "/include"
cuda = c.CDLL(f"{BUILT}/libcuda.so.1")
random.seed(1)
nvrtc = c.CDLL(f"{BUILT}/libnvrtc.so")

HEAD = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <mma.h>
#include <cuda/barrier>
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
typedef unsigned int uint32_t; typedef unsigned short uint16_t; typedef unsigned long long int uint64_t;
typedef struct CUtensorMap_st { alignas(128) unsigned long long int opaque[16]; } CUtensorMap;
#define LANE (threadIdx.x % 32)
"""


def check(result, what):
    if result:
        raise RuntimeError(f"{what}: {result}")


context = c.c_void_p()
check(cuda.cuInit(0), "cuInit")
check(cuda.cuDevicePrimaryCtxRetain(c.byref(context), 0), "a context")
check(cuda.cuCtxSetCurrent(context), "the context")


def ptx_of(source):
    program = c.c_void_p()
    check(nvrtc.nvrtcCreateProgram(c.byref(program), source.encode(), None, 0, None, None), "a program")
    words = ["--gpu-architecture=sm_90a", f"--include-path={INCLUDE}", f"--include-path={INCLUDE}/cccl"]
    options = (c.c_char_p * len(words))(*[w.encode() for w in words])
    failed = nvrtc.nvrtcCompileProgram(program, len(words), options)
    size = c.c_size_t()
    if failed:
        nvrtc.nvrtcGetProgramLogSize(program, c.byref(size))
        log = c.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(log.value.decode())
    nvrtc.nvrtcGetPTXSize(program, c.byref(size))
    ptx = c.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx), "PTX")
    return ptx


def function(name, body, parameters):
    source = f'{HEAD}\nextern "C" __global__ void __launch_bounds__(1024) {name}({parameters}) {{\n{body}\n}}\n'
    module, found = c.c_void_p(), c.c_void_p()
    check(cuda.cuModuleLoadData(c.byref(module), ptx_of(source)), "a module")
    check(cuda.cuModuleGetFunction(c.byref(found), module, name.encode()), "a function")
    return found


def device(data):
    at = c.c_uint64()
    check(cuda.cuMemAlloc_v2(c.byref(at), c.c_size_t(len(data))), "memory")
    check(cuda.cuMemcpyHtoD_v2(at, data, c.c_size_t(len(data))), "a copy to the device")
    return at


def host(at, bytes_):
    out = c.create_string_buffer(bytes_)
    check(cuda.cuMemcpyDtoH_v2(out, at, c.c_size_t(bytes_)), "a copy from the device")
    return out.raw


def launch(f, arguments, threads=32, shared=0, blocks=1):
    pointers = (c.c_void_p * len(arguments))(*[c.cast(c.byref(a), c.c_void_p) for a in arguments])
    return cuda.cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, shared, None, pointers, None)


def run(name, body, inputs, out, threads=32, shared=0, blocks=1):
    """Runs `body` on inputs x0, x1, … of (C type, struct format, values); gives what it leaves in y."""
    kinds = [f"{kind} const* const x{i}" for i, (kind, _, _) in enumerate(inputs)] + [f"{out[0]} * const y"]
    buffers = [device(struct.pack(f"{len(v)}{code}", *v)) for _, code, v in inputs]
    bytes_ = struct.calcsize(f"{out[2]}{out[1]}")
    y = device(bytes(bytes_))
    check(launch(function(name, body, ", ".join(kinds)), buffers + [y], threads, shared, blocks), "a launch")
    return list(struct.unpack(f"{out[2]}{out[1]}", host(y, bytes_)))


def quarters(n):
    """Numbers whose products and sums are exact in every type used here."""
    return [random.randint(-8, 8) / 4 for _ in range(n)]


def bf16(values):
    return [struct.unpack("<I", struct.pack("<f", v))[0] >> 16 for v in values]


def product(a, b, m, n, k, b_by_columns=False):
    at = (lambda i, j: b[j * k + i]) if b_by_columns else (lambda i, j: b[i * n + j])
    return [sum(a[i * k + l] * at(l, j) for l in range(k)) for i in range(m) for j in range(n)]


SHARED = "extern __shared__ __align__(128) char s[];"


class Threads(unittest.TestCase):
    def test_a_block_sums_by_shuffles_and_shared_memory(self):
        body = f"""{SHARED} float * t = reinterpret_cast<float *>(&s[0]); float a = 0;
            for (unsigned i = threadIdx.x; i < 1000; i += 256) a += x0[i];
            for (int m = 16; m; m /= 2) a += __shfl_xor_sync(__activemask(), a, m);
            if (LANE == 0) t[threadIdx.x / 32] = a;
            __syncthreads();
            if (threadIdx.x == 0) {{ float b = 0; for (int i = 0; i < 8; i++) b += t[i]; y[0] = b; }}"""
        x = quarters(1000)
        self.assertEqual(run("sum", body, [("float", "f", x)], ("float", "f", 1), 256, 64), [sum(x)])

    def test_each_exchange_takes_from_the_right_lane(self):
        body = """unsigned v = x0[threadIdx.x], l = LANE, at = threadIdx.x * 4;
            y[at] = __shfl_sync(__activemask(), v, (l + 5) % 32); y[at + 1] = __shfl_xor_sync(__activemask(), v, 3);
            y[at + 2] = __shfl_up_sync(__activemask(), v, 2); y[at + 3] = __shfl_down_sync(__activemask(), v, 7);"""
        x = random.sample(range(10**6), 64)
        want = []
        for t in range(64):
            w, l = t // 32 * 32, t % 32
            want += [x[w + (l + 5) % 32], x[w + (l ^ 3)], x[w + (l - 2 if l >= 2 else l)], x[w + (l + 7 if l < 25 else l)]]
        self.assertEqual(run("exchange", body, [("unsigned", "I", x)], ("unsigned", "I", 256), 64), want)

    def test_votes_of_a_warp_that_is_not_full(self):
        body = """int v = x0[threadIdx.x]; unsigned at = threadIdx.x * 3; y[at] = __ballot_sync(__activemask(), v);
            y[at + 1] = __any_sync(__activemask(), v); y[at + 2] = __all_sync(__activemask(), v);"""
        x = [1] * 32 + [0, 1, 0, 1, 1, 0, 0, 1]
        want = [2**32 - 1, 1, 1] * 32 + [sum(b << i for i, b in enumerate(x[32:])), 1, 0] * 8
        self.assertEqual(run("votes", body, [("int", "i", x)], ("unsigned", "I", 120), 40), want)

    def test_one_lane_is_elected(self):
        body = """unsigned result; asm volatile("{\\n\\t.reg .pred %%px;\\n\\t.reg .b32 %mask;\\n\\tactivemask.b32 %mask;\\n\\t"
            "elect.sync _|%%px, %mask;\\n\\tselp.b32 %0, 1, 0, %%px;\\n\\t}" : "=r"(result)); y[threadIdx.x] = result;"""
        body = body.replace("%mask", "%%mask")
        self.assertEqual(sum(run("elected", body, [("int", "i", [0])], ("unsigned", "I", 32))), 1)

    def test_a_missing_barrier_gives_other_numbers_backward(self):
        body = f"""{SHARED} float * t = reinterpret_cast<float *>(&s[0]); t[threadIdx.x] = x0[threadIdx.x]; BARRIER
            y[threadIdx.x] = t[(threadIdx.x + 33) % 64];"""
        x = quarters(64)
        answers = {}
        for name, barrier in [("with_barrier", "__syncthreads();"), ("without_barrier", "")]:
            for order in ["forward", "backward"]:
                c.CDLL(None).setenv(b"DEVICE_ORDER", order.encode(), 1)
                kernel = body.replace("BARRIER", barrier)
                y = run(name, kernel, [("float", "f", x)], ("float", "f", 64), 64, 256)
                answers[name, order] = struct.pack("64f", *y)
        c.CDLL(None).setenv(b"DEVICE_ORDER", b"forward", 1)
        right = struct.pack("64f", *[x[(i + 33) % 64] for i in range(64)])
        self.assertEqual({answers["with_barrier", o] for o in ["forward", "backward"]}, {right})
        self.assertNotEqual(answers["without_barrier", "forward"], answers["without_barrier", "backward"])

    def test_threads_count_together(self):
        body = """int result; asm volatile("atom.relaxed.add.u32 %0, [%1], %2;" : "=r"(result) : "l"(y), "r"(1) : "memory");
            float f; asm volatile("atom.relaxed.add.f32 %0, [%1], %2;" : "=f"(f) : "l"((float *)y + 1), "f"(0.5f) : "memory");
            int m; asm volatile("atom.relaxed.max.s32 %0, [%1], %2;" : "=r"(m) : "l"(y + 2), "r"((int)threadIdx.x) : "memory");"""
        y = run("count", body, [("int", "i", [0])], ("int", "i", 3), 96)
        self.assertEqual((y[0], struct.unpack("f", struct.pack("i", y[1]))[0], y[2]), (96, 48.0, 95))

    def test_the_greatest_of_numbers_and_no_number(self):
        body = """float r; asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x0[threadIdx.x]), "f"(1.0f)); y[threadIdx.x] = r;
            asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x0[threadIdx.x]), "f"(1.0f)); y[threadIdx.x + 3] = r;"""
        y = run("no_number", body, [("float", "f", [0.5, 2.0, float("nan")])], ("float", "f", 6), 3)
        self.assertEqual((y[:2], y[3:5]), ([1.0, 2.0], [0.5, 1.0]))
        self.assertTrue(y[2] != y[2] and y[5] != y[5])


class Matrices(unittest.TestCase):
    MMA = """asm volatile("mma.sync.aligned.m16n8k{k}.row.col.f32.{type}.{type}.f32 {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%10, %11, %12, %13}};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(d[0]), "f"(d[1]), "f"(d[2]), "f"(d[3]));
        int g = LANE / 4, t = LANE % 4; y[g * 8 + 2 * t] = d[0]; y[g * 8 + 2 * t + 1] = d[1]; y[(g + 8) * 8 + 2 * t] = d[2]; y[(g + 8) * 8 + 2 * t + 1] = d[3];"""

    def test_mma_of_halves_by_ldmatrix(self):
        for kind, encode in [("bf16", bf16), ("f16", lambda v: [struct.unpack("H", struct.pack("e", x))[0] for x in v])]:
            body = f"""{SHARED} uint16_t * sa = reinterpret_cast<uint16_t *>(&s[0]); uint16_t * sb = sa + 256;
                for (int i = threadIdx.x; i < 256; i += 32) sa[i] = x0[i]; for (int i = threadIdx.x; i < 128; i += 32) sb[i] = x1[i];
                __syncwarp(); float d[4] = {{1, 1, 1, 1}}; uint32_t a[4], b[2];
                uint32_t ra = __cvta_generic_to_shared(sa + LANE % 16 * 16 + LANE / 16 * 8), rb = __cvta_generic_to_shared(sb + LANE % 16 * 8);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared::cta.b16 {{%0, %1, %2, %3}}, [%4];" : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(ra) : "memory");
                asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared::cta.b16 {{%0, %1}}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(rb) : "memory");
                """ + self.MMA.format(k=16, type=kind)
            a, b = quarters(256), quarters(128)
            inputs = [("uint16_t", "H", encode(a)), ("uint16_t", "H", encode(b))]
            want = [1 + v for v in product(a, b, 16, 8, 16)]
            self.assertEqual(run(f"mma_{kind}", body, inputs, ("float", "f", 128), 32, 1024), want, kind)

    def test_mma_of_tf32_cuts_to_ten_bits(self):
        body = """float d[4] = {0, 0, 0, 0}; uint32_t a[4], b[2]; int g = LANE / 4, t = LANE % 4; const uint32_t * u = (const uint32_t *)x0, * v = (const uint32_t *)x1;
            a[0] = u[g * 8 + t]; a[1] = u[(g + 8) * 8 + t]; a[2] = u[g * 8 + t + 4]; a[3] = u[(g + 8) * 8 + t + 4]; b[0] = v[t * 8 + g]; b[1] = v[(t + 4) * 8 + g];
            """ + self.MMA.replace("int g = LANE / 4, t = LANE % 4; ", "").format(k=8, type="tf32")
        a, b = quarters(128), quarters(64)
        low = 2.0**-13  # of 1: below the tenth bit
        inputs = [("float", "f", [x + low if x == 1 else x for x in a]), ("float", "f", b)]
        self.assertEqual(run("mma_tf32", body, inputs, ("float", "f", 128)), product(a, b, 16, 8, 8))

    def test_stmatrix_undoes_ldmatrix(self):
        body = f"""{SHARED} uint16_t * t = reinterpret_cast<uint16_t *>(&s[0]); for (int i = threadIdx.x; i < 256; i += 32) t[i] = x0[i]; __syncwarp();
            uint32_t at = __cvta_generic_to_shared(t + LANE * 8), to = __cvta_generic_to_shared(t + 256 + LANE * 8), r0, r1, r2, r3;
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared::cta.b16 {{%0, %1, %2, %3}}, [%4];" : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(at) : "memory");
            asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared::cta.b16 [%0], {{%1, %2, %3, %4}};" : : "r"(to), "r"(r0), "r"(r1), "r"(r2), "r"(r3) : "memory");
            __syncwarp(); for (int i = threadIdx.x; i < 256; i += 32) y[i] = t[256 + i];"""
        x = [random.randrange(65536) for _ in range(256)]
        self.assertEqual(run("stmatrix", body, [("uint16_t", "H", x)], ("uint16_t", "H", 256), 32, 1024), x)

    def test_wmma(self):
        body = """using namespace nvcuda::wmma; fragment<matrix_a, 16, 16, 16, __half, row_major> a; fragment<matrix_b, 16, 16, 16, __half, col_major> b;
            fragment<accumulator, 16, 16, 16, float> d; fill_fragment(d, 0.5f); load_matrix_sync(a, x0, 16); load_matrix_sync(b, x1, 16);
            mma_sync(d, a, b, d); store_matrix_sync(y, d, 16, mem_row_major);"""
        a, b = quarters(256), quarters(256)
        want = [0.5 + v for v in product(a, b, 16, 16, 16, b_by_columns=True)]
        inputs = [("__half", "e", a), ("__half", "e", b)]
        self.assertEqual(run("wmma", body, inputs, ("float", "f", 256)), want)


class Copies(unittest.TestCase):
    def test_cp_async_fills_with_zeros(self):
        body = f"""{SHARED} float * t = reinterpret_cast<float *>(&s[0]); uint32_t to = __cvta_generic_to_shared(t + threadIdx.x * 4);
            uint32_t have = threadIdx.x == 3 ? 8 : 16, single = __cvta_generic_to_shared(t + 32 + threadIdx.x);
            asm volatile("cp.async.cg.shared::cta.global [%0], [%1], 16, %2;" : : "r"(to), "l"(x0 + threadIdx.x * 4), "r"(have) : "memory");
            asm volatile("cp.async.ca.shared::cta.global [%0], [%1], 4, 4;" : : "r"(single), "l"(x0 + threadIdx.x) : "memory");
            __syncthreads(); for (int i = threadIdx.x; i < 40; i += 8) y[i] = t[i];"""
        x = quarters(32)
        want = x[:14] + [0, 0] + x[16:] + x[:8]
        self.assertEqual(run("cp_async", body, [("float", "f", x)], ("float", "f", 40), 8, 256), want)

    def test_a_barrier_in_shared_memory_lets_nobody_pass_early(self):
        body = f"""{SHARED} float * t = reinterpret_cast<float *>(&s[0]);
            cuda::barrier<cuda::thread_scope_block> * b = reinterpret_cast<cuda::barrier<cuda::thread_scope_block> *>(&s[1024]);
            if (threadIdx.x == 0) {{ init(b, 64); }} __syncthreads();
            for (int r = 0; r < 3; r++) {{ cuda::memcpy_async(t + threadIdx.x, x0 + r * 64 + threadIdx.x, 4, *b);
                b->wait(b->arrive()); y[r * 64 + threadIdx.x] = t[63 - threadIdx.x]; __syncthreads(); }}"""
        x = quarters(192)
        want = [x[r * 64 + 63 - t] for r in range(3) for t in range(64)]
        self.assertEqual(run("barrier", body, [("float", "f", x)], ("float", "f", 192), 64, 1152), want)

    def test_tma_turns_addresses_and_cuts_at_the_edge(self):
        # 40 × 96 halves; boxes of 64 columns (128 bytes) × 16 rows at row 32 and column 64 hang over both edges.
        body = f"""{SHARED} uint16_t * t = reinterpret_cast<uint16_t *>(&s[0]);
            cuda::barrier<cuda::thread_scope_block> * b = reinterpret_cast<cuda::barrier<cuda::thread_scope_block> *>(&s[4096]);
            if (threadIdx.x == 0) {{ init(b, 32); }} __syncthreads(); cuda::barrier<cuda::thread_scope_block>::arrival_token token;
            if (threadIdx.x == 0) {{ cuda::device::experimental::cp_async_bulk_tensor_2d_global_to_shared(t, &map, 64, 32, *b);
                token = cuda::device::barrier_arrive_tx(*b, 1, 2048); }} else token = b->arrive();
            b->wait(std::move(token)); for (int i = threadIdx.x; i < 1024; i += 32) y[i] = t[i];"""
        x = [random.randrange(65536) for _ in range(40 * 96)]
        data, y = device(struct.pack(f"{len(x)}H", *x)), device(bytes(2048))

        class Map(c.Structure):
            _align_ = 128
            _fields_ = [("opaque", c.c_uint64 * 16)]

        made = Map()
        sizes, strides = (c.c_uint64 * 2)(96, 40), (c.c_uint64 * 1)(192)
        box, steps = (c.c_uint32 * 2)(64, 16), (c.c_uint32 * 2)(1, 1)
        U16, SWIZZLE_128 = 1, 3
        check(cuda.cuTensorMapEncodeTiled(c.byref(made), U16, 2, data, sizes, strides, box, steps, 0, SWIZZLE_128, 0, 0), "a map")
        f = function("tma", body, "const __grid_constant__ CUtensorMap map, uint16_t * const y")
        check(launch(f, [made, y], 32, 8192), "a launch")
        got = struct.unpack("1024H", host(y, 2048))
        for row in range(16):
            for column in range(64):
                inside = 32 + row < 40 and 64 + column < 96
                want = x[(32 + row) * 96 + 64 + column] if inside else 0
                place = (row * 128 + column * 2) ^ ((row % 8) << 4)
                self.assertEqual(got[place // 2], want, (row, column))


class Driver(unittest.TestCase):
    def test_copies_stay_inside_one_allocation(self):
        at = device(bytes(100))
        out = c.create_string_buffer(200)
        self.assertEqual(cuda.cuMemcpyDtoH_v2(out, at, c.c_size_t(101)), 700)
        self.assertEqual(cuda.cuMemcpyHtoD_v2(c.c_uint64(at.value + 90), out, c.c_size_t(11)), 700)
        self.assertEqual(cuda.cuMemcpyDtoH_v2(out, c.c_uint64(at.value + 90), c.c_size_t(10)), 0)

    def test_fresh_memory_is_no_number(self):
        at = c.c_uint64()
        check(cuda.cuMemAlloc_v2(c.byref(at), c.c_size_t(4)), "memory")
        self.assertTrue(struct.unpack("f", host(at, 4))[0] != 0.0)

    def test_launches_that_a_card_refuses(self):
        f = function("nothing", "", "int const* const x")
        x = device(bytes(4))
        self.assertEqual(launch(f, [x], threads=1025), 1)
        self.assertEqual(launch(f, [x], threads=0), 1)
        self.assertEqual(launch(f, [x], shared=50000), 1)
        check(cuda.cuFuncSetAttribute(f, 8, 60000), "shared memory")
        self.assertEqual(launch(f, [x], shared=50000), 0)
        self.assertEqual(cuda.cuFuncSetAttribute(f, 8, 232449), 1)

    def test_faults_come_when_they_are_ordered(self):
        code = "from selftest import *; a = device(bytes(8)); print(cuda.cuMemAlloc_v2(c.byref(c.c_uint64()), c.c_size_t(8)), cuda.cuMemAlloc_v2(c.byref(c.c_uint64()), c.c_size_t(8)))"
        for setting, want in [("2", "2 0"), ("2+", "2 2"), ("", "0 0")]:
            environment = dict(os.environ, DEVICE_FAIL_ALLOCATION=setting)
            here = os.path.dirname(os.path.abspath(__file__))
            got = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
            self.assertEqual(got.stdout.strip(), want, got.stderr)

    def test_an_unknown_instruction_is_not_passed_over(self):
        body = 'unsigned r; asm volatile("mov.u32 %0, %%smid;" : "=r"(r)); y[0] = r;'
        with self.assertRaisesRegex(RuntimeError, "a launch: 500"):
            run("unknown", body, [("int", "i", [0])], ("unsigned", "I", 1))


if __name__ == "__main__":
    unittest.main()
