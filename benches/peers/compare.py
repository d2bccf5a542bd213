"""Ours and theirs on the same work, in turn, as one table of ratios.

    make bench-peers-training

or: python benches/peers/compare.py PATH_TO_DPSYNTH [--device cuda --dtype bf16]

Theirs are PyTorch with PEFT, Opacus by hooks and by ghost clipping, and Hugging Face's generate, in this script's own Python.
Both sides get the same model file, the same shapes and all cores of the machine (or its GPU); each measurement is a process
of its own, so that nobody inherits another's memory. What a peer cannot do is said in its row. Fails where ours fails or the
peers are not installed, never for being slow.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="dpsynth")
    parser.add_argument("--model", help="a GGUF [default: the one of `dpsynth fetch smollm2-135m-instruct`]")
    parser.add_argument("--config", default=os.path.join(HERE, "../../pipelines/imdb.toml"))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--records", type=int, default=32, help="records of a logical batch")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a record behind its prompt")
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sample-records", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1, help="times that each side is measured; medians are shown")
    parser.add_argument("--only", choices=["lora", "full", "sample"], action="append", help="leaves out the other parts")
    return parser.parse_args()


def said(command):
    """The last line of what a program prints, as JSON; or why there is none."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        wrong = [line for line in words if line.startswith("error:")] or words[-1:]
        return {"failed": wrong[0].removeprefix("error: ")}
    return json.loads(done.stdout.splitlines()[-1])


def ours(a, *arguments):
    found = said([a.program, "bench", *arguments, "--device", a.device, "--json"])
    if "failed" in found:
        sys.exit(f"dpsynth bench {arguments[0]}: {found['failed']}")
    return found


def theirs(script, a, model, *arguments):
    common = [model, "--device", a.device, "--dtype", a.dtype]
    return said([sys.executable, os.path.join(HERE, script), *common, *map(str, arguments)])


def model_file(program):
    done = subprocess.run([program, "fetch", "smollm2-135m-instruct"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout.splitlines()[1].strip()


def alternate(rounds, *sides):
    """Each side's measurements, one of each in every round."""
    return list(zip(*([side() for side in sides] for _ in range(rounds))))


def median(measurements, key):
    values = [m[key] for m in measurements if m.get(key) is not None]
    return statistics.median(values) if values else None


def row(work, peer, mine, its, found):
    failed = next((f["failed"] for f in found if "failed" in f), None)
    if failed:
        print(f"{work:<34} {mine or float('nan'):>9.1f} {peer:<22} cannot: {failed}", flush=True)
    elif mine is None:
        print(f"{work:<34} {'–':>9} {peer:<22} {its:>9.1f}", flush=True)
    else:
        print(f"{work:<34} {mine:>9.1f} {peer:<22} {its:>9.1f} {mine / its:>7.2f}x", flush=True)
    memory = [m.get("peak_device_bytes") or m.get("peak_rss_bytes") for m in found if "failed" not in m]
    return {"work": work, "peer": peer, "ours": mine, "theirs": its, "failed": failed, "their_peak_bytes": max(memory, default=None)}


def training(a, model, full):
    trained = "full" if full else "lora"
    shape = ["--records", a.records, "--micro-batch-size", a.micro_batch_size, "--steps", a.steps]
    mine = ["train", a.config, "--profile", "quick", "--set", f"model.path={model}", *map(str, shape), "--tokens", str(a.tokens)]
    mine += ["--dtype", a.dtype] + (["--full"] if full else [])
    first = ours(a, *mine)
    prompt = round(first["tokens_per_record"]) - a.tokens
    modes = [("PyTorch", "plain", []), ("Opacus hooks", "hooks", []), ("Opacus ghost", "ghost", [])]
    if full:
        # Opacus refuses tied weights in ghost clipping; with a head of its own it trains a fifth more parameters.
        modes.append(("Opacus ghost, untied", "ghost", ["--untie"]))

    def peer(mode, more):
        return lambda: theirs(
            "training.py", a, model, "--mode", mode, "--train", trained, *shape,
            "--tokens", prompt + a.tokens, "--prompt-tokens", prompt, *more,
        )

    at_hand = [first]
    own_side = lambda: at_hand.pop() if at_hand else ours(a, *mine)
    (own, *found) = alternate(a.rounds, own_side, *(peer(mode, more) for _, mode, more in modes))
    rows = []
    for (name, mode, _), its in zip(modes, found):
        key = "non_private_tokens_per_second" if mode == "plain" else "tokens_per_second"
        kind = "non-private" if mode == "plain" else "private"
        rows.append(row(f"{kind} {trained}, tokens/s", name, median(own, key), median(its, "tokens_per_second"), its))
    return {"ours": own, "peers": found, "rows": rows}


def sampling(a, model):
    mine = ["sample", a.config, "--profile", "quick", "--set", f"model.path={model}", "--records", str(a.sample_records)]
    mine += ["--tokens", str(a.tokens), "--batch-size", str(a.batch_size), "--dtype", a.dtype]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as prompts:
        first = ours(a, *mine[:6], "--records", "2", *mine[8:])
        json.dump({"prompts": first["prompts"], "end": first["end"]}, prompts)
        prompts.flush()
        shape = ["--records", a.sample_records, "--tokens", a.tokens, "--batch-size", a.batch_size]
        own, its = alternate(
            a.rounds,
            lambda: ours(a, *mine),
            lambda: theirs("sampling.py", a, model, "--prompts", prompts.name, *shape),
        )
    rows = [row("sampling, tokens/s", "transformers generate", median(own, "tokens_per_second"), median(its, "tokens_per_second"), its)]
    return {"ours": own, "peers": [its], "rows": rows}


def main():
    a = parse()
    model = a.model or model_file(a.program)
    parts = {
        "lora": lambda: training(a, model, full=False),
        "full": lambda: training(a, model, full=True),
        "sample": lambda: sampling(a, model),
    }
    print(f"{a.device}, {a.dtype}; {a.records} records of {a.tokens} tokens behind the prompt, {a.micro_batch_size} at once")
    print(f"{'work':<34} {'ours':>9} {'peer':<22} {'peer':>9} {'ratio':>8}", flush=True)
    found = {name: run() for name, run in parts.items() if not a.only or name in a.only}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
