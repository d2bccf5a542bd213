#!/usr/bin/env bash
# What synthetic records are worth: the tables of docs/results.md, row by row, then side by side.
#   benches/utility.sh ablation [PIPELINE [EPSILON]]   plain → guidance → lexicon → scorers → variants of training
#   benches/utility.sh epsilon  [PIPELINE]             epsilon 1, 3, 8 and without privacy
# The seeds of drawing and evaluation are the same in every row; the noise is not, and cannot be. A quarter of an hour a row
# on two cores; a row that is there is kept. ROWS="plain judged" picks rows, ARGS go to every row (--profile full on a GPU).
set -euo pipefail

table=${1:?ablation or epsilon}
pipeline=${2:-pipelines/movie-snippets.toml}
at=${3:-8}
program=${PROGRAM:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dpsynth/target}/release/dpsynth}
out=${OUT:-runs/utility}/$table-$(basename "$pipeline" .toml)
[ "$table" = ablation ] && out=$out-$at
mkdir -p "$out"

# row NAME RUN SETTINGS…: rows of one RUN share what was trained.
row() {
    local name=$1 run=$2
    shift 2
    [ -e "$out/$name" ] && return
    [[ -n ${ROWS:-} && " $ROWS " != *" ${name#*-} "* ]] && return
    "$program" run "$pipeline" --runs-dir "$out/work" --set name="$run" "$@" ${ARGS:-}
    cp -r "$out/work/$run"-* "$out/$name.part"
    mv "$out/$name.part" "$out/$name"
}

# Each row is compared at 512 records and with all its own; zero-shot records are the same in many rows, and few.
few=(--set "finetune.epsilon=$at" --set evaluate.encoder=false --set evaluate.quality.enabled=false
    --set sample.zero_shot_records=640 --set evaluate.records=512)
unguided=(--set sample.guidance=0 --set sample.refine.min_posterior=0)
without=(--set lexicon.share=0)

case $table in
ablation)
    row 01-plain text "${few[@]}" "${without[@]}" "${unguided[@]}"
    row 02-guidance text "${few[@]}" "${without[@]}" --set sample.refine.min_posterior=0
    row 03-refinement text "${few[@]}" "${without[@]}" --set sample.refine.min_posterior=0.7
    row 04-objective label "${few[@]}" "${without[@]}" --set sample.refine.min_posterior=0.7 \
        --set finetune.objective.contrast=16
    row 05-lexicon lexicon "${few[@]}" "${unguided[@]}" --set lexicon.scorer_share=0
    row 06-scorer scorer "${few[@]}" "${unguided[@]}" --set lexicon.encoder=none
    row 07-judged-by-tokens scorer "${few[@]}" --set lexicon.encoder=none
    row 08-profile profile "${few[@]}"
    row 09-not-lifted profile "${few[@]}" --set sample.guidance=0 --set sample.lexicon_weight=0
    row 10-untrained untrained "${few[@]}" --set finetune.steps=1 --set finetune.expected_batch_size=1 \
        --set finetune.learning_rate=1e-9
    row 11-contrast contrast "${few[@]}" --set finetune.objective.contrast=16
    row 12-adam-bc adam-bc "${few[@]}" --set finetune.optimizer=adam-bc
    row 13-rank-2 rank-2 "${few[@]}" --set finetune.rank=2
    row 14-larger-batches large "${few[@]}" --set finetune.expected_batch_size=512 --set finetune.steps=5
    ;;
epsilon)
    for epsilon in 1 3; do
        row "epsilon-$epsilon" "epsilon-$epsilon" --set finetune.epsilon=$epsilon
    done
    # Without privacy is an arm of its own, trained on the same records for the same steps.
    row epsilon-8 epsilon-8 --set finetune.epsilon=8 --set 'evaluate.arms=["non_private"]'
    ;;
*)
    sed -n '2,6s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
"$program" compare "$out"/[0-9e]*
