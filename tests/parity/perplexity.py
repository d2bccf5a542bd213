"""Holds what examples/perplexity.rs wrote against transformers on the same weights, dequantised by the gguf package:

    cargo run --release --example perplexity -- MODEL.gguf > lines.jsonl
    python perplexity.py MODEL.gguf lines.jsonl

Prints how many texts have other tokens, both perplexities and their relative difference. Needs torch, transformers and gguf.
"""

import json
import math
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model, lines = Path(sys.argv[1]), [json.loads(line) for line in open(sys.argv[2])]
where = {"pretrained_model_name_or_path": model} if model.is_dir() else {
    "pretrained_model_name_or_path": model.parent, "gguf_file": model.name,
}
tokenizer = AutoTokenizer.from_pretrained(**where)
m = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()

other, ours, theirs, count = 0, 0.0, 0.0, 0
for line in lines:
    tokens = line["tokens"]
    own = tokenizer.encode(line["text"], add_special_tokens=False, split_special_tokens=True)[: len(tokens) - 1]
    other += own != tokens[1:]
    with torch.no_grad():
        logits = m(torch.tensor([tokens])).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="sum").item()
    n = len(tokens) - 1
    ours, theirs, count = ours + line["nats"] * n, theirs + loss, count + n
ours, theirs = math.exp(ours / count), math.exp(theirs / count)
print(f"{len(lines)} texts, {count} tokens; {other} texts with other tokens")
print(f"perplexity {ours:.4f} here, {theirs:.4f} by transformers: {ours / theirs - 1:+.2e}")
