"""Makes nf4.safetensors for tests/it/parity.rs: `python nf4.py` beside this file.

For each case `NAME.values` (float32) and `NAME.numbers`: the same after bitsandbytes has quantised them to NF4 with double
quantisation and has dequantised them again, with the mean of their scales as `NAME.offset`. Needs torch, bitsandbytes and safetensors; written with torch 2.15,
bitsandbytes 0.50, safetensors 0.8, on a CPU.
"""

from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import save_file

torch.manual_seed(0)
heavy = torch.randn(30, 128) * torch.exp(torch.randn(30, 1))
# Rows are whole blocks, or odd: rows that end inside a block are dequantised wrongly by version 0.50's kernel for AVX-512
# (of 40 rows of 96 weights the mean error was nine times what the levels leave).
CASES = {
    "whole_blocks": torch.randn(16, 64),
    # More scales than share one of their own, a last block that is not whole, and an odd number of weights.
    "long": torch.randn(131, 127) * 0.02,
    "heavy": heavy,
    "zeros": torch.zeros(2, 64),
    "a_block_of_zeros": torch.cat([torch.zeros(1, 64), torch.randn(3, 64)]),
    # Each weight on a level of its block, or just between two.
    "alike": torch.full((2, 128), -0.25),
    "tiny": torch.randn(1, 5) * 1e-30,
}

out = {}
for name, values in CASES.items():
    packed, state = quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
    out[f"{name}.values"] = values.contiguous()
    out[f"{name}.offset"] = state.offset.reshape(1)
    out[f"{name}.numbers"] = dequantize_4bit(packed, state).contiguous()
save_file(out, Path(__file__).parent / "nf4.safetensors")
