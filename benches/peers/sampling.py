"""Hugging Face's generate, timed: a line of JSON.

    sampling.py MODEL.gguf --prompts PROMPTS.json

The prompts are those that `dpsynth bench sample` used, label by label in turn; temperature 1, no truncation, and a record
ends with the model's own end token. A record's tokens count up to and including its end, not the padding behind it.
Prompts of different lengths are padded on the left and masked, as generate wants them.
"""

import json
import sys

import torch
from transformers import GenerationConfig

from common import arguments, load, peaks, synchronised


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--prompts", required=True, help="JSON: {\"prompts\": [[token, …], …], \"end\": token}")
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64, help="longest record, its end included")
    parser.add_argument("--batch-size", type=int, default=256)
    a = parser.parse_args()
    with open(a.prompts) as file:
        given = json.load(file)
    prompts, end = given["prompts"], given["end"]
    if not prompts or a.records < 1 or a.tokens < 1 or a.batch_size < 1:
        sys.exit("nothing to draw")
    model = load(a.model, a.threads)
    model = model.to(a.device, torch.bfloat16 if a.dtype == "bf16" else torch.float32).eval()
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=a.tokens, eos_token_id=end, pad_token_id=end
    )
    longest = max(map(len, prompts))
    rows = [prompts[i % len(prompts)] for i in range(a.records)]
    ids = torch.tensor([[end] * (longest - len(p)) + p for p in rows], device=a.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in rows], device=a.device)

    def draw(ids, mask):
        drawn = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)[:, longest:]
        ended = drawn == end
        return torch.where(ended.any(1), ended.int().argmax(1) + 1, drawn.shape[1]).sum().item()

    with torch.inference_mode():
        draw(ids[:2], mask[:2])
        begun = synchronised(a.device)
        tokens = sum(draw(*part) for part in zip(ids.split(a.batch_size), mask.split(a.batch_size)))
        seconds = synchronised(a.device) - begun
    shape = {k: v for k, v in vars(a).items() if k not in ("model", "prompts")}
    print(json.dumps(shape | {
        "drawn_tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "records_per_second": a.records / seconds,
        **peaks(a.device),
    }))


if __name__ == "__main__":
    main()
