#!/usr/bin/env bash
# The methods of the papers at one epsilon, side by side: SST-2 by MiniLM, three seeds a row.
#   benches/methods.sh [EPSILON [PIPELINE]]
# The noise is another in each run, which is what the three are for; the budget, batches and steps are the same in all rows but
# where the method says otherwise. ROWS="adamw flat" picks rows, SEEDS=1 takes one, ARGS go to every run. PUBLIC names a file of
# public records, for the rows that take some; BATCH is the normal equations' one batch.
set -euo pipefail

epsilon=${1:-3}
pipeline=${2:-pipelines/sst2-direct.toml}
program=${PROGRAM:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dpsynth/target}/release/dpsynth}
out=${OUT:-runs/methods}/$(basename "$pipeline" .toml)-$epsilon
public=${PUBLIC:-}
mkdir -p "$out"

# row NAME SETTINGS…
row() {
    local name=$1
    shift
    [[ -n ${ROWS:-} && " $ROWS " != *" $name "* ]] && return
    for seed in $(seq "${SEEDS:-3}"); do
        [ -e "$out/$name-$seed.json" ] && continue
        local settings=()
        for setting in "$@"; do settings+=(--set "$setting"); done
        local began=$SECONDS
        "$program" run "$pipeline" --profile quick --runs-dir "$out/work" --set name="$name-$seed" \
            --set finetune.epsilon="$epsilon" ${ARGS:-} "${settings[@]}" >"$out/$name-$seed.log" 2>&1
        python3 - "$out/work/$name-$seed-quick/report.json" $((SECONDS - began)) >"$out/$name-$seed.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
of = report["references"][0]
p = of["privacy"]
print(json.dumps({"accuracy": of["accuracy"], "macro_f1": of["macro_f1"], "seconds": int(sys.argv[2]),
                  "noise_multiplier": p["noise_multiplier"], "epsilon": p["epsilon"], "delta": p["delta"]}))
PY
        rm -rf "$out/work/$name-$seed-quick"
    done
}

# Ways, optimizers and clipping on frozen vectors, where a run takes half a minute; step sizes were not searched.
on=evaluate.dp_direct.method=features
update=evaluate.dp_direct.update
rate=evaluate.dp_direct.learning_rate
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
row zeroth-order $on "$update={kind=\"zeroth-order\",radius=0.01}" 'finetune.optimizer="sgd"' $rate=1.0
if [ -n "$public" ]; then
    row projection $on "$update={kind=\"projection\"}" evaluate.dp_direct.public="$public"
    row candidates $on "$update={kind=\"candidates\"}" evaluate.dp_direct.public="$public"
fi
row normal-equations $on "$update={kind=\"normal-equations\"}" evaluate.dp_direct.steps=1 \
    evaluate.dp_direct.expected_batch_size="${BATCH:-67300}"

# What is trained, by AdamW and the gradient.
for method in last-layer bitfit ia3 lora-fa lora prefix full; do
    row $method evaluate.dp_direct.method=$method
done

python3 - "$out" <<'PY'
import collections, glob, json, math, os, re, sys
rows = collections.OrderedDict()
for path in sorted(glob.glob(sys.argv[1] + "/*-[0-9]*.json"), key=os.path.getmtime):
    rows.setdefault(re.sub(r"-\d+\.json$", "", os.path.basename(path)), []).append(json.load(open(path)))
student = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
print("| method | accuracy (95 % interval, seeds) | noise multiplier | seconds |\n|---|---|---|---|")
for name, runs in rows.items():
    values = [r["accuracy"] for r in runs]
    n, mean = len(values), sum(values) / len(values)
    half = student.get(n, 2.0) * math.sqrt(sum((v - mean) ** 2 for v in values) / max(n - 1, 1) / n) if n > 1 else float("nan")
    print(f"| {name} | {mean:.3f} (±{half:.3f}, {n}) | {runs[0]['noise_multiplier']:.4f} | {sum(r['seconds'] for r in runs) / n:.0f} |")
PY
