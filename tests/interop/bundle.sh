#!/usr/bin/env bash
# A bundle for the readers: a run of the tiny model on made-up records, audited and released. Seconds.
# usage: bundle.sh PROGRAM DIR    (DIR must not be there yet)
set -euo pipefail
program=$(realpath "$1")
target=$(realpath -m "$2")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export DPSYNTH_LEDGERS="$work/ledgers"

records() {
	echo "text,label"
	for i in $(seq "$1"); do
		if ((i % 2)); then echo "film $i is a delight and could not be better,positive"; else echo "film $i is a bore that drags on and on,negative"; fi
	done
}
records 200 >train.csv
records 60 >test.csv
cat >tiny.toml <<END
[dataset]
train = "train.csv"
test = "test.csv"
labels = [{ column = "label", names = ["negative", "positive"], type = "integer" }]
public_size = 200

[model]
path = "$here/../fixtures/llama/model.gguf"

[prompt]
user = "Write a {{ label }} film review."

[prepare]
max_tokens = 16

[finetune]
epsilon = 4.0
expected_batch_size = 4
steps = 2
rank = 2

[finetune.objective]
contrast = 0.0

[sample]
records = 40
shard_records = 16
max_tokens = 8
batch_size = 8
guidance = 1.0

[sample.refine]
min_posterior = 0.0

[evaluate]
encoder = false
seeds = 2

[release]
license = "cc-by-4.0"
language = ["en"]
pretty_name = "Tiny: \"film\" reviews, 100 %"
deployer = "Example Ltd"
deployer_type = "industry"
region = "no"
date = "2026-11-22"
END
"$program" run tiny.toml --profile quick >/dev/null
"$program" audit runs/tiny-quick --canaries 1000 --replay-seconds 1 >/dev/null
"$program" release runs/tiny-quick --to "$target" >/dev/null
"$program" verify "$target"
