"""What PyTorch alone makes of the shapes of `dpsynth bench`, timed: a line of JSON.

    torch_only.py plain|private|sample --device cuda --dtype bf16

For machines that have PyTorch and nothing else: no model file, no transformers, no Opacus. A Llama of SmolLM2-135M's shape
with random weights. plain is LoRA without privacy; private bounds each record's gradient from what goes into each map and
the gradient of what comes out of it, one forward and one backward, which is less work than Opacus' hooks; sample draws
records side by side with their keys and values kept. The median of the steps after one that is not counted.
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional

NOISE_MULTIPLIER = 0.4
MAX_GRAD_NORM = 1.0
RANK, ALPHA = 16, 32.0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["plain", "private", "sample"])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="bf16", choices=["f32", "bf16"])
    parser.add_argument("--tf32", action="store_true", help="lets f32 be multiplied in TF32, which dpsynth does not")
    parser.add_argument("--records", type=int, default=256, help="records of a logical batch, or to draw")
    parser.add_argument("--tokens", type=int, default=300, help="tokens of a record behind its prompt")
    parser.add_argument("--prompt-tokens", type=int, default=40)
    parser.add_argument("--micro-batch-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=256, help="records that are drawn side by side")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=49152)
    return parser.parse_args()


class Map:
    """x·Wᵀ + (alpha / rank)·(x·A)·B, of which A and B are trained."""

    def __init__(self, a, input, output, keep):
        dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
        self.weight = (torch.randn(output, input, device=a.device) / input**0.5).to(dtype)
        self.factors = [torch.randn(input, RANK, device=a.device) / input**0.5, torch.zeros(RANK, output, device=a.device)]
        self.keep, self.kept = keep, []
        for factor in self.factors:
            factor.requires_grad_(not keep)

    def __call__(self, x):
        first, second = self.factors
        y = functional.linear(x.to(self.weight.dtype), self.weight).float() + (x @ first * (ALPHA / RANK)) @ second
        if self.keep and y.requires_grad:
            self.kept = [x.detach()]
            y.register_hook(self.kept.append)
        return y

    def gradients(self):
        """Each record's, of A and of B."""
        x, g = self.kept
        self.kept = []
        first, second = self.factors
        scale = ALPHA / RANK
        return [x.transpose(1, 2) @ (g @ second.T * scale), (x @ first * scale).transpose(1, 2) @ g]


class Llama:
    def __init__(self, a, keep):
        torch.manual_seed(0)
        self.a, self.head_width = a, a.width // a.heads
        kv = a.kv_heads * self.head_width
        of = lambda input, output: Map(a, input, output, keep)
        self.layers = [
            [of(a.width, a.width), of(a.width, kv), of(a.width, kv), of(a.width, a.width),
             of(a.width, a.hidden), of(a.width, a.hidden), of(a.hidden, a.width)]
            for _ in range(a.layers)
        ]
        self.table = torch.randn(a.vocabulary, a.width, device=a.device) * 0.02
        self.gain = torch.ones(a.width, device=a.device)
        angles = torch.arange(4096, device=a.device)[:, None] / 1e5 ** (torch.arange(0, self.head_width, 2, device=a.device) / self.head_width)
        self.cos, self.sin = angles.cos(), angles.sin()

    def maps(self):
        return [m for layer in self.layers for m in layer]

    def norm(self, x):
        return functional.rms_norm(x, (self.a.width,), self.gain, 1e-5)

    def turn(self, x, start):
        cos, sin = (t[start : start + x.shape[2]] for t in (self.cos, self.sin))
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, tokens, held=None, start=0):
        """Hidden states; `held` are keys and values by layer, which grow."""
        x = self.table[tokens]
        if held is None and self.layers[0][0].keep:
            x.requires_grad_()
        split = lambda t, heads: t.view(t.shape[0], t.shape[1], heads, self.head_width).transpose(1, 2)
        inner = torch.bfloat16 if self.a.dtype == "bf16" else torch.float32
        for layer, (q, k, v, o, gate, up, down) in enumerate(self.layers):
            h = self.norm(x)
            queries = self.turn(split(q(h), self.a.heads), start)
            keys, values = self.turn(split(k(h), self.a.kv_heads), start), split(v(h), self.a.kv_heads)
            if held is not None:
                keys, values = (
                    torch.cat([old, new.to(inner)], 2) if old is not None else new.to(inner)
                    for old, new in zip(held[layer], (keys, values))
                )
                held[layer] = (keys, values)
            mixed = functional.scaled_dot_product_attention(
                queries.to(inner), keys.to(inner), values.to(inner), is_causal=start == 0, enable_gqa=True
            ).float()
            x = x + o(mixed.transpose(1, 2).reshape(x.shape))
            h = self.norm(x)
            x = x + down(functional.silu(gate(h)) * up(h))
        return self.norm(x)

    def logits(self, hidden):
        if self.a.dtype == "bf16":
            return (hidden.bfloat16() @ self.table.bfloat16().T).float()
        return hidden @ self.table.T


def waited(a):
    if a.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def train(a):
    private = a.mode == "private"
    model = Llama(a, private)
    factors = [f for m in model.maps() for f in m.factors]
    optimizer = torch.optim.AdamW(factors, lr=1e-3, weight_decay=0.0)
    tokens = torch.randint(0, a.vocabulary, (a.records, a.prompt_tokens + a.tokens), device=a.device)
    seconds = []
    for _ in range(a.steps + 1):
        begun = waited(a)
        sums = [torch.zeros_like(f) for f in factors]
        for batch in tokens.split(a.micro_batch_size):
            hidden = model.forward(batch[:, :-1])[:, a.prompt_tokens - 1 :]
            targets = batch[:, a.prompt_tokens :]
            each = functional.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten(), reduction="none")
            each.view_as(targets).mean(1).sum().backward()
            if not private:
                continue
            gradients = [g for m in model.maps() for g in m.gradients()]
            norms = sum(g.flatten(1).square().sum(1) for g in gradients).sqrt()
            clip = MAX_GRAD_NORM / (norms + 0.01)
            for total, g in zip(sums, gradients):
                total += torch.einsum("r,rab->ab", clip, g)
        for f, total in zip(factors, sums):
            if private:
                f.grad = (total + torch.randn_like(total) * NOISE_MULTIPLIER * MAX_GRAD_NORM) / a.records
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(waited(a) - begun)
    return statistics.median(seconds[1:]), a.records * (a.prompt_tokens + a.tokens)


@torch.no_grad()
def sample(a):
    model = Llama(a, True)
    begun, drawn = waited(a), 0
    for first in range(0, a.records, a.batch_size):
        rows = min(a.batch_size, a.records - first)
        token = torch.randint(0, a.vocabulary, (rows, a.prompt_tokens), device=a.device)
        held, start = [(None, None)] * a.layers, 0
        for _ in range(a.tokens):
            hidden = model.forward(token, held, start)[:, -1]
            start += token.shape[1]
            token = torch.multinomial(model.logits(hidden).softmax(-1), 1)
            drawn += rows
    return waited(a) - begun, drawn


def main():
    a = parse()
    torch.backends.cuda.matmul.allow_tf32 = a.tf32
    seconds, tokens = sample(a) if a.mode == "sample" else train(a)
    peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else None
    print(json.dumps({
        "torch": torch.__version__, "mode": a.mode, "device": torch.cuda.get_device_name() if a.device == "cuda" else "cpu",
        "dtype": a.dtype, "tf32": a.tf32, "seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds,
        "bytes_peak": peak,
    }))


main()
