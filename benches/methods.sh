#!/usr/bin/env bash
# The methods of the papers at one epsilon, side by side, three seeds a row: classifiers of SST-2 by MiniLM, or, of a pipeline that
# draws records, language models by the loss of a token.
#   benches/methods.sh [EPSILON [PIPELINE]]
# The noise is another in each run, which is what the three are for; the budget, batches and steps are the same in all rows but
# where the method says otherwise. ROWS="adamw flat" picks rows, SEEDS=1 takes one, ARGS go to every run. PUBLIC names a file of
# public records, for the rows that take some; BATCH is the normal equations' one batch. Time is the processors' own, so that what
# runs beside counts for little: a classifier's is of the whole run, with reading and the test, a language model's of training.
set -euo pipefail

epsilon=${1:-3}
pipeline=${2:-pipelines/sst2-direct.toml}
target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dpsynth/target}/release
program=${PROGRAM:-$target/dpsynth}
signal=${SIGNAL:-$target/examples/label_signal}
out=${OUT:-runs/methods}/$(basename "$pipeline" .toml)-$epsilon
public=${PUBLIC:-}
mkdir -p "$out"
grep -q '^task = "classify"' "$pipeline" && task=classify || task=synthesise

# row NAME SETTINGS…
row() {
    local name=$1
    shift
    [[ -n ${ROWS:-} && " $ROWS " != *" $name "* ]] && return
    for seed in $(seq "${SEEDS:-3}"); do
        grep -qs '"peak"' "$out/$name-$seed.json" && continue
        local settings=()
        for setting in "$@"; do settings+=(--set "$setting"); done
        python3 - "$task" "$program" "$signal" "$out" "$name-$seed" "$pipeline" --profile quick --runs-dir "$out/work/$name-$seed" \
            --set name="$name-$seed" --set finetune.epsilon="$epsilon" ${ARGS:-} "${settings[@]}" <<'PY'
import json, os, resource, shutil, subprocess, sys
task, program, signal, out, name, *rest = sys.argv[1:]
# A folder for each: a run that was left unfinished would hold up the others.
work, log = f"{out}/work/{name}", open(f"{out}/{name}.log", "w")
run = f"{work}/{name}-quick"
# The records are public. Together these runs cost more than a budget has room for.
ledgers = os.path.abspath(f"{work}/ledgers")


def call(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=log, stderr=log, check=True, env=os.environ | {"DPSYNTH_LEDGERS": ledgers})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if task == "classify":
    seconds = call(program, "run", *rest)
    of = json.load(open(f"{run}/report.json"))["references"][0]
    found, p = {"accuracy": of["accuracy"]}, of["privacy"]
else:
    call(program, "prepare", *rest)
    seconds = call(program, "finetune", *rest)
    p = json.load(open(f"{run}/model/privacy.json"))
# The largest of all processes so far.
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
if task != "classify":
    lines = subprocess.run([signal, run], capture_output=True, text=True, check=True).stdout.splitlines()
    of = {line.split(", ")[1]: line.split(", ") for line in lines[1:]}
    found = {"loss": float(of["trained"][2]), "base": float(of["base"][2]), "auc": float(of["trained"][3])}
found |= {"seconds": seconds, "peak": peak}
found |= {key: p[key] for key in ("noise_multiplier", "epsilon", "delta")}
json.dump(found, open(f"{out}/{name}.json", "w"))
shutil.rmtree(work)
PY
    done
}

update=finetune.update
rate=finetune.learning_rate
if [ $task = classify ]; then
    # Ways, optimizers and clipping on frozen vectors, where a run takes half a minute; step sizes were not searched.
    on=evaluate.dp_direct.method=features
    update=evaluate.dp_direct.update
    rate=evaluate.dp_direct.learning_rate
else
    # An adapter of rank 16; the objective is the text alone, which all ways know.
    on=finetune.objective.contrast=0
fi
row adamw $on
row sgd $on 'finetune.optimizer="sgd"' finetune.momentum=0.9 $rate=1.0
row adam-bc $on 'finetune.optimizer="adam-bc"'
row model-mix $on 'finetune.optimizer="model-mix"' $rate=5.0
row automatic $on 'finetune.clipping="automatic"'
row normalised $on 'finetune.clipping="automatic"' finetune.clipping_regularizer=0.5
row flat $on "$update={kind=\"flat\"}"
row flat-record $on "$update={kind=\"flat\",ascent=\"record\"}"
# Rounds of N/B steps: of worth from one pass over the records on.
row random-allocation $on 'finetune.sampler="random-allocation"'
# For research: the epsilon that is printed is what spread differences show, and the one that is asked for its own account's.
row laplace-mixture $on 'finetune.noise="laplace-mixture"' research=true
if [ $task = classify ]; then
    row zeroth-order $on "$update={kind=\"zeroth-order\",radius=0.01}" 'finetune.optimizer="sgd"' $rate=1.0
    row zeroth-order-laplace $on "$update={kind=\"zeroth-order\",radius=0.01,directions=1}" 'finetune.noise="exact-laplace"' \
        'finetune.optimizer="sgd"' $rate=1.0
    if [ -n "$public" ]; then
        row projection $on "$update={kind=\"projection\"}" evaluate.dp_direct.public="$public"
        row candidates $on "$update={kind=\"candidates\"}" evaluate.dp_direct.public="$public"
    fi
    # For the sum of many steps, which is what gradient descent takes.
    row bands $on finetune.bands=4 'finetune.optimizer="sgd"' finetune.momentum=0.9 $rate=1.0
    row normal-equations $on "$update={kind=\"normal-equations\"}" evaluate.dp_direct.steps=1 \
        evaluate.dp_direct.expected_batch_size="${BATCH:-67300}"
    # What is trained, by AdamW and the gradient.
    for method in last-layer bitfit ia3 lora-fa lora prefix full; do
        row $method evaluate.dp_direct.method=$method
    done
    if [ -n "$public" ]; then
        row prefix-in-2-layers evaluate.dp_direct.method=prefix evaluate.dp_direct.prefix_layers=2 \
            evaluate.dp_direct.public="$public"
    fi
else
    row zeroth-order $on finetune.method=bitfit "$update={kind=\"zeroth-order\"}" 'finetune.optimizer="sgd"' $rate=1e-4
    row zeroth-order-laplace $on finetune.method=bitfit "$update={kind=\"zeroth-order\",directions=1}" \
        'finetune.noise="exact-laplace"' 'finetune.optimizer="sgd"' $rate=1e-4
    row bands $on finetune.bands=4
    # Few values are moved further.
    row lora-fa $on finetune.method=lora-fa
    row bitfit $on finetune.method=bitfit $rate=5e-3
    row ia3 $on finetune.method=ia3 $rate=1e-2
    row soft-prompt $on finetune.method=soft-prompt $rate=1e-2
    row full $on finetune.method=full $rate=1e-4
fi

python3 - "$out" <<'PY'
import collections, glob, json, math, os, re, sys
rows = collections.OrderedDict()
for path in sorted(glob.glob(sys.argv[1] + "/*-[0-9]*.json"), key=os.path.getmtime):
    rows.setdefault(re.sub(r"-\d+\.json$", "", os.path.basename(path)), []).append(json.load(open(path)))
student = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
mean = lambda runs, key: sum(r[key] for r in runs) / len(runs)
measures = [key for key in ("accuracy", "loss", "auc") if any(key in runs[0] for runs in rows.values())]
print(f"| method | {' | '.join(f'{key} (95 % interval, seeds)' for key in measures)} | noise multiplier | processor time beside AdamW's | peak memory |")
print("|---" * (len(measures) + 4) + "|")
for name, runs in rows.items():
    cells = []
    for key in measures:
        values, n, of = [r[key] for r in runs], len(runs), mean(runs, key)
        half = student.get(n, 2.0) * math.sqrt(sum((v - of) ** 2 for v in values) / max(n - 1, 1) / n) if n > 1 else float("nan")
        cells.append(f"{of:.3f} (±{half:.3f}, {n})")
    ratio = mean(runs, "seconds") / mean(rows["adamw"], "seconds") if "adamw" in rows else float("nan")
    print(f"| {name} | {' | '.join(cells)} | {mean(runs, 'noise_multiplier'):.4f} | {ratio:.2f} | {mean(runs, 'peak'):.2f} GB |")
PY
