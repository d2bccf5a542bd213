#!/usr/bin/env bash
# What synthetic records are worth: the tables of docs/results.md, row by row, then side by side.
#   benches/utility.sh ablation [PIPELINE]   plain → guidance → refinement → objective, one budget, the same seeds
#   benches/utility.sh epsilon  [PIPELINE]   epsilon 1, 3, 8 and without privacy
# ARGS go to every row (--profile full on a GPU). About an hour each on two cores; a row that is there is kept.
set -euo pipefail

table=${1:?ablation or epsilon}
pipeline=${2:-pipelines/movie-snippets.toml}
program=${PROGRAM:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dpsynth/target}/release/dpsynth}
out=runs/utility/$table-$(basename "$pipeline" .toml)
mkdir -p "$out"

# What a profile has of it is taken away and given back, a thing at a time. A later --set wins.
text=(--set finetune.objective.contrast=0 --set sample.guidance=0 --set sample.refine.min_posterior=0)
guided=(--set sample.guidance=2)
refined=("${guided[@]}" --set sample.refine.min_posterior=0.7)

# row NAME RUN SETTINGS…: rows of one RUN share what was trained.
row() {
    local name=$1 run=$2
    shift 2
    [ -e "$out/$name" ] && return
    "$program" run "$pipeline" --runs-dir "$out/work" --set name="$run" "$@" ${ARGS:-}
    cp -r "$out/work/$run"-* "$out/$name.part"
    mv "$out/$name.part" "$out/$name"
}

case $table in
ablation)
    row 1-plain text "${text[@]}"
    row 2-guidance text "${text[@]}" "${guided[@]}"
    row 3-refinement text "${text[@]}" "${refined[@]}"
    row 4-objective label "${text[@]}" "${refined[@]}" --set finetune.objective.contrast=16
    row 5-warm-start warm "${text[@]}" "${refined[@]}" --set finetune.warm_start.records=512
    row 6-adam-bc adam-bc "${text[@]}" "${refined[@]}" --set finetune.optimizer=adam-bc
    row 7-mismatch mismatch "${text[@]}" "${refined[@]}" --set finetune.objective.mismatch=0.3
    row 8-label-words words "${text[@]}" "${refined[@]}" --set finetune.objective.label_words=1
    ;;
epsilon)
    for epsilon in 1 3; do
        row "epsilon-$epsilon" "epsilon-$epsilon" --set finetune.epsilon=$epsilon
    done
    # Without privacy is an arm of its own, trained on the same records for the same steps.
    row epsilon-8 epsilon-8 --set finetune.epsilon=8 --set 'evaluate.arms=["non_private"]'
    ;;
*)
    sed -n '2,5s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
"$program" compare "$out"/[0-9e]*
