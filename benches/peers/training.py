"""One way to train in PyTorch, timed: a line of JSON.

    training.py MODEL.gguf --mode plain|hooks|ghost --train lora|full

plain is PyTorch (and PEFT, with LoRA) without privacy; hooks and ghost are Opacus' two ways to clip each record's gradient.
All do what `dpsynth bench train` does: records of equal length from a fixed seed, a record's loss the mean over its own
target tokens, logits at those positions only, micro-batches of one logical batch, AdamW; the private ones add noise once a
step. One process a mode, so that the peak of memory is the mode's own. The median of the steps after one that is not
counted.
"""

import json
import statistics
import sys

import torch
from torch.nn.functional import cross_entropy

from common import arguments, load, peaks, synchronised

NOISE_MULTIPLIER = 0.4
MAX_GRAD_NORM = 1.0
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--mode", required=True, choices=["plain", "hooks", "ghost"])
    parser.add_argument("--train", default="lora", choices=["lora", "full"])
    parser.add_argument("--untie", action="store_true", help="gives the head weights of its own, which Opacus' ghost clipping needs")
    parser.add_argument("--records", type=int, default=32, help="records of a logical batch")
    parser.add_argument("--tokens", type=int, default=104, help="tokens of a record, its prompt included")
    parser.add_argument("--prompt-tokens", type=int, default=40)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32.0)
    return parser.parse_args()


def trainable(a):
    """The model as it is trained, on its device."""
    model = load(a.model, a.threads)
    if a.train == "lora":
        from peft import LoraConfig, get_peft_model

        if a.dtype == "bf16":
            model = model.to(torch.bfloat16)  # the base; PEFT keeps the adapter in f32
        model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=a.alpha, target_modules=LORA_TARGETS))
    elif a.untie:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.use_cache = False
    return model.to(a.device).train()


def losses(model, tokens, prompt):
    """Each record's mean loss over its own tokens."""
    # Whole in memory: Opacus' norms of an embedding look at it as one row.
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, prompt:]
    logits = model(input_ids=inputs, logits_to_keep=targets.shape[1]).logits
    each = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return each.view_as(targets).mean(1)


def plain(model, a):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)

    def step(batches, forward):
        for batch in batches:
            forward(model, batch).sum().div(a.records).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def opacus(model, a):
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    ghost = a.mode == "ghost"
    # Not strict: rotary positions are buffers, the same for every record.
    if ghost:
        model = GradSampleModuleFastGradientClipping(model, strict=False, max_grad_norm=MAX_GRAD_NORM)
    else:
        model = GradSampleModule(model, strict=False)
    inner = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    optimizer = (DPOptimizerFastGradientClipping if ghost else DPOptimizer)(
        inner, noise_multiplier=NOISE_MULTIPLIER, max_grad_norm=MAX_GRAD_NORM, expected_batch_size=a.records
    )

    def step(batches, forward):
        # As Opacus' BatchMemoryManager does it: clip and add up, noise and a step at the last.
        for i, batch in enumerate(batches):
            optimizer.signal_skip_step(do_skip=i + 1 < len(batches))
            loss = forward(model, batch)
            if ghost:
                DPTensorFastGradientClipping(model, optimizer, loss).backward()
            else:
                loss.mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def main():
    a = parse()
    if not 0 < a.prompt_tokens < a.tokens:
        sys.exit("a record needs a prompt and at least one token behind it")
    model = trainable(a)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    step = plain(model, a) if a.mode == "plain" else opacus(model, a)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, model.config.vocab_size, (a.records, a.tokens), generator=generator).to(a.device)
    batches = tokens.split(a.micro_batch_size)

    def forward(model, batch):
        with torch.autocast(a.device, torch.bfloat16, enabled=a.dtype == "bf16"):
            return losses(model, batch, a.prompt_tokens)

    seconds = []
    for _ in range(a.steps + 1):
        begun = synchronised(a.device)
        step(batches, forward)
        seconds.append(synchronised(a.device) - begun)
    median = statistics.median(seconds[1:])
    shape = {k: v for k, v in vars(a).items() if k != "model"}
    print(json.dumps(shape | {
        "trained_parameters": parameters,
        "seconds": median,
        "tokens_per_second": a.records * a.tokens / median,
        **peaks(a.device),
    }))


if __name__ == "__main__":
    main()
