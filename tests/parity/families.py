"""Makes the fixtures of tests/it/parity.rs: `python families.py` beside this file.

One folder a family: a tiny random model as save_pretrained writes it (`config.json` and safetensors, of some in shards, in
float16 or in bfloat16), and
`expected.json`: logits in float32 (row by row, 6 significant digits), log-probabilities of a text's tokens after its first
(nats, float64), greedy tokens, and each record's loss and its gradient's norm, by all weights and by a LoRA adapter (float64).
`gradients.safetensors`: each record's gradient as float32, by every tensor of the model (`base.0.model.norm.weight` …) and by
the adapter's values (`lora.0` …: A as [input, rank], then B as [rank, output], in the order in which a block applies its maps).
`adapter.safetensors`: the adapter as PEFT saves it.
Needs torch, transformers, peft and safetensors; written with torch 2.15, transformers 5.24, peft 0.21, safetensors 0.8.
"""

import copy
import json
import shutil
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
LAYERS, VOCAB, CONTEXT, END = 2, 64, 48, 63
RANK, ALPHA = 2, 6
# In the order in which a block applies them.
MAPS = [
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
]
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": None,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def rope(theta, **scaled):
    return {"rope_type": "default", "rope_theta": theta} | scaled


# Name, class, configuration, element type of the file, bytes of a shard at most.
FAMILIES = [
    ("llama3", LlamaForCausalLM,
     LlamaConfig(rope_parameters=LLAMA3, tie_word_embeddings=False, head_dim=8, **SIZES), torch.float32, None),
    ("llama_bias", LlamaForCausalLM,
     LlamaConfig(rope_parameters=rope(100.0, rope_type="linear", factor=2.0), tie_word_embeddings=True,
                 attention_bias=True, **SIZES), torch.float32, None),
    ("mistral", MistralForCausalLM,
     MistralConfig(rope_parameters=rope(1000.0), tie_word_embeddings=False, sliding_window=None, **SIZES),
     torch.float32, None),
    ("qwen2", Qwen2ForCausalLM,
     Qwen2Config(rope_parameters=rope(1000.0), tie_word_embeddings=True, **SIZES), torch.float16, 8000),
    ("qwen3", Qwen3ForCausalLM,
     Qwen3Config(rope_parameters=rope(1000.0), tie_word_embeddings=False, head_dim=6, **SIZES), torch.bfloat16, 8000),
    ("gemma3", Gemma3ForCausalLM,
     Gemma3TextConfig(
         rope_parameters={
             "full_attention": rope(2000.0, rope_type="linear", factor=4.0), "sliding_attention": rope(100.0),
         },
         layer_types=["sliding_attention", "full_attention"], sliding_window=7, query_pre_attn_scalar=10, head_dim=6,
         hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True, **SIZES,
     ), torch.float32, None),
]  # fmt: skip


def randomise(m, seed, dtype):
    """Every weight away from its neutral value, so that one that is left out shows; rounded as the file has it."""
    g = torch.Generator().manual_seed(seed)
    for name, p in m.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if "norm" in name:
            noise = p.data + 0.3 * noise
        elif name.endswith(".bias"):
            noise = 0.3 * noise
        else:
            noise = 0.35 * noise
        p.data = noise.to(dtype).float()
    return m.eval()


def save(m, folder, dtype, shard):
    """Writes config.json and the tensors; they give the same model again."""
    shutil.rmtree(folder, ignore_errors=True)
    stored = copy.deepcopy(m).to(dtype)
    stored.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == bool(shard)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, m(tokens).logits)


def significant(t):
    return [float(f"{x:.6g}") for x in t.flatten().tolist()]


def logits(m, tokens):
    with torch.no_grad():
        return m(torch.tensor([tokens])).logits[0]


def log_probability(m, tokens):
    log_p = logits(m, tokens).log_softmax(-1)[:-1]
    return log_p.gather(1, torch.tensor(tokens)[1:, None]).sum().item()


def ids(seed, n):
    return torch.randint(0, END, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy(m, n):
    """A prompt, and what goes on from it without a near tie."""
    for seed in range(100):
        tokens, clear = ids(seed, 5), True
        for _ in range(n):
            best = logits(m, tokens)[-1].topk(2)
            clear = clear and best.values[0] - best.values[1] > 0.02 and best.indices[0].item() != END
            tokens.append(best.indices[0].item())
        if clear:
            return {"prompt": tokens[:5], "continuation": tokens[5:]}
    raise AssertionError("near ties everywhere")


def gradients(m, record):
    """The record with its loss and its gradient's norm, and the gradient by each weight that is trained.

    The loss is the mean cross-entropy over the record's own tokens, those after its prompt."""
    m.zero_grad()
    tokens = torch.tensor([record["tokens"]])
    out = m(tokens).logits[0]
    first = record["prompt"]
    loss = torch.nn.functional.cross_entropy(out[first - 1 : -1], tokens[0, first:])
    loss.backward()
    grads = {n: p.grad.clone() for n, p in m.named_parameters() if p.requires_grad}
    norm = sum(g.double().square().sum() for g in grads.values()).sqrt().item()
    return {**record, "loss": loss.item(), "norm": norm}, grads


def records():
    return [
        {"prompt": 4, "tokens": ids(11, 4) + [40] * 8 + [END]},
        {"prompt": 7, "tokens": ids(12, 7) + [END]},
        {"prompt": 3, "tokens": ids(13, 40)},
    ]


def family(name, kind, config, dtype, shard, seed):
    folder = HERE / name
    m = randomise(kind(config), seed, dtype)
    save(m, folder, dtype, shard)
    exact = copy.deepcopy(m).double()
    texts = []
    for text in [ids(1, 30), ids(2, 3)]:
        texts.append({
            "tokens": text, "logits": significant(logits(m, text)), "log_probability": log_probability(exact, text),
        })
    expected = {"texts": texts, "greedy": greedy(m, 8)}

    stored, base = {}, []
    for i, record in enumerate(records()):
        record, grads = gradients(exact, record)
        base.append(record)
        stored |= {f"base.{i}.{tensor}": g.float().contiguous() for tensor, g in grads.items()}
    expected["base"] = {"records": base}

    # LoRA, its B away from zero, by PEFT.
    lora = get_peft_model(
        copy.deepcopy(m),
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=[n.rsplit(".", 1)[1] for n in MAPS]),
    )
    g = torch.Generator().manual_seed(2)
    for tensor, p in lora.named_parameters():
        if "lora_" in tensor:
            p.data = (0.2 if "lora_A" in tensor else 0.1) * torch.randn(p.shape, generator=g)
    lora.eval()
    with tempfile.TemporaryDirectory() as saved:
        lora.save_pretrained(saved)
        (folder / "adapter.safetensors").write_bytes(Path(saved, "adapter_model.safetensors").read_bytes())
    exact_lora, tuned = copy.deepcopy(lora).double(), []
    for i, record in enumerate(records()):
        record, grads = gradients(exact_lora, record)
        tuned.append(record)
        flat = [
            grads.pop(f"base_model.model.model.layers.{layer}.{tensor}.lora_{part}.default.weight").T.flatten()
            for layer in range(LAYERS)
            for tensor in MAPS
            for part in "AB"
        ]
        assert not grads
        stored[f"lora.{i}"] = torch.cat(flat).float().contiguous()
    expected["lora"] = {"rank": RANK, "alpha": ALPHA, "records": tuned, "logits": significant(logits(lora, texts[0]["tokens"]))}
    save_file(stored, folder / "gradients.safetensors")
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


def main():
    # The same sums in the same order each time.
    torch.set_num_threads(1)
    for seed, (name, kind, config, dtype, shard) in enumerate(FAMILIES):
        family(name, kind, config, dtype, shard, seed)
        print(name, sum(f.stat().st_size for f in (HERE / name).iterdir()))


if __name__ == "__main__":
    main()
