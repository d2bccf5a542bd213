"""Exported models in transformers and PEFT, held against our own logits: `make interop-model` [RUN=runs/imdb-quick].

Without a run it makes tiny ones: of tests/fixtures/llama, and of a random model of each other family, as a Hugging Face folder,
by LoRA and by all weights; a run that is given must be audited. Exports each, loads the folder
in transformers, its adapter in PEFT on the exported base and on the GGUF as transformers itself reads it, and compares: next
token's logits to 1e-3 in float32, tokens exactly, also of the chat template; then draws a text.
Needs torch, transformers, peft and gguf: benches/peers/training-requirements.txt.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, set_seed

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
from families import FAMILIES, randomise

ROOT = Path(__file__).parents[2]
LIMIT = 1e-3
TEXTS = [
    "the film was good",
    "  two  spaces,\n\nnew lines\tand 2026 digits, 1234567890  ",
    "naïve café — “quotes” 日本語 Привет",
    "emoji 🎬👍🏽 and a family 👨‍👩‍👧",
    "<|im_start|>user\nIt's we'll they'VE<|im_end|>\n<|im_start|>assistant\n",
    "a\u00a0no-break space, a soft\u00adhyphen and \u200bnothing",
    "x = {'a': [1, 2.5e-3]}  # code\n\tif x:\n\t\treturn",
    "?!...,;:---___ \r\n .",
]
RECORDS = "text,label\n" + "".join(
    f"film {i} was what it was,{'positive' if i % 2 else 'negative'}\n" for i in range(200)
)
TINY = """
[dataset]
train = "train.csv"
test = "train.csv"
labels = [{{ column = "label", names = ["negative", "positive"] }}]
public_size = 200
[model]
path = "{model}"
[prompt]
user = "Write a {{{{ label }}}} film review."
[prepare]
max_tokens = 16
[finetune]
method = "{method}"
epsilon = 4.0
expected_batch_size = 4
steps = 4
learning_rate = 0.05
rank = 2
[finetune.objective]
contrast = 0.0
[lexicon]
share = 0
[sample]
records = 8
max_tokens = 8
[sample.refine]
min_posterior = 0.0
[evaluate]
encoder = false
seeds = 2
"""


def call(*command, folder, **more):
    done = subprocess.run([str(c) for c in command], cwd=folder, stdout=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}")
    return done.stdout


def checkpoint(kind, config, folder):
    """A random model of the family with GPT-2's tokenizer of tests/fixtures, as save_pretrained writes it."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "tests/fixtures/gpt2")
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 128
    config.eos_token_id = tokenizer.eos_token_id
    model = randomise(kind(config), 1, torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny(program, folder, model=ROOT / "tests/fixtures/llama/model.gguf", method="lora"):
    (folder / "train.csv").write_text(RECORDS)
    (folder / "tiny.toml").write_text(TINY.format(model=model, method=method))
    os.environ["DPSYNTH_LEDGERS"] = str(folder / "ledgers")
    run = folder / "runs/tiny-quick"
    call(program, "run", "tiny.toml", "--profile", "quick", folder=folder)
    call(program, "audit", run, "--canaries", "1000", "--replay-seconds", "1", folder=folder)
    return run


def base_model(program, run, folder):
    model = tomllib.loads((run / "config.toml").read_text())["model"]
    if "path" in model:
        return Path(model["path"])
    return Path(json.loads(call(program, "fetch", model["asset"], "--json", folder=folder))["files"][0]["path"])


def next_token(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1]


def main():
    program, example = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if len(sys.argv) > 3:
        with tempfile.TemporaryDirectory() as folder:
            return hold(program, example, Path(sys.argv[3]).resolve(), Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        hold(program, example, tiny(program, Path(folder)), Path(folder))
    for name, kind, config, _, _ in FAMILIES:
        for method in ["lora", "full"]:
            with tempfile.TemporaryDirectory() as folder:
                print(f"--- {name}, {method}", flush=True)
                model = checkpoint(kind, config, Path(folder, "base"))
                run = tiny(program, Path(folder), model, method)
                # transformers gives every Qwen 2 that family's own tokenizer, whatever its files say.
                hold(program, example, run, Path(folder), PreTrainedTokenizerFast)


def hold(program, example, run, folder, tokenizers=AutoTokenizer):
    out = folder / "model"
    listed = json.loads(call(program, "export", run, "--to", out, "--with-base", "--json", folder=folder))
    print(listed["statement"])

    tokenizer = tokenizers.from_pretrained(out)
    card = (out / "README.md").read_text()
    messages = json.loads(card.split("messages = ", 1)[1].split("\n", 1)[0])
    chat = dict(add_generation_prompt=True)
    texts = [*TEXTS, tokenizer.apply_chat_template(messages, tokenize=False, **chat)]
    answers = call(example, run, folder=folder, input=json.dumps(texts))
    ours = [json.loads(line) for line in answers.splitlines()]

    for text, own in zip(texts, ours):
        theirs = tokenizer(text)["input_ids"]
        assert theirs == own["tokens"], (text, theirs, own["tokens"])
        decoded = tokenizer.decode(theirs, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert decoded == text, (decoded, text)
    templated = tokenizer.apply_chat_template(messages, return_dict=True, **chat)["input_ids"]
    assert templated == ours[-1]["tokens"], "the chat template"
    print(f"tokens of {len(texts)} texts and of the chat template: the same")

    float32 = dict(dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(out, **float32).eval()
    models = {"merged": (merged, "trained")}
    if (out / "adapter").exists():
        base = AutoModelForCausalLM.from_pretrained(out / "base", **float32).eval()
        models["base"] = (base, "base")
        # The base's own logits are taken before PEFT puts the adapter into it.
        differences = {"base": furthest(base, ours, "base")}
        models["adapter on base/"] = (PeftModel.from_pretrained(base, out / "adapter").eval(), "trained")
        own = base_model(program, run, folder)
        where = {} if own.is_dir() else {"gguf_file": own.name}
        read = AutoModelForCausalLM.from_pretrained(own if own.is_dir() else own.parent, **where, **float32).eval()
        models["adapter on the base as transformers reads it"] = (
            PeftModel.from_pretrained(read, out / "adapter").eval(),
            "trained",
        )
    else:
        differences = {}
    moved = max(max(abs(a - b) for a, b in zip(o["base"], o["trained"])) for o in ours)
    for name, (model, state) in models.items():
        if name not in differences:
            differences[name] = furthest(model, ours, state)
    for name, difference in differences.items():
        print(f"{name}: logits differ by at most {difference:.1e} (training moved them by up to {moved:.2f})")
        assert difference < LIMIT, name
    assert moved > 10 * LIMIT, "training changed nothing that this would see"

    set_seed(0)
    inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt", **chat)
    output = merged.generate(**inputs)
    print("drawn:", repr(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)))


def furthest(model, ours, state):
    return max((next_token(model, o["tokens"]) - torch.tensor(o[state])).abs().max().item() for o in ours)


main()
