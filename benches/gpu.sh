#!/usr/bin/env bash
# Both profiles of IMDb on one NVIDIA GPU: the numbers that docs/results.md keeps open.
#
# Build first, where there is Rust: make CUDA=1 build
# Then, where there is the GPU:     benches/gpu.sh path/to/dpsynth OUTPUT_FOLDER
# The models and IMDb must be in reach: HF_HOME, DPSYNTH_CACHE; see data/README.md for machines without internet.
set -euo pipefail

program=$(realpath "${1:?the program, built with CUDA=1}")
out=$(mkdir -p "${2:?a folder for the reports}" && realpath "$2")
cd "$(dirname "$0")/.."
export DPSYNTH_LEDGERS="$out/ledgers"

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/machine.csv"
"$program" doctor --json > "$out/doctor.json"

# The same seeded run on both devices: losses, norms and adapters are to agree. Marked NOT PRIVATE, as it should be.
for device in cpu cuda; do
	"$program" run pipelines/imdb.toml --profile quick --runs-dir "$out/runs" --json \
		--set name="agreement-$device" --set device=$device --set finetune.seed=1 \
		--set finetune.steps=2 --set finetune.expected_batch_size=16 --set sample.records=16 \
		--set evaluate.encoder=false > "$out/agreement-$device.json"
	cp "$out/runs/agreement-$device-quick/internal/training.jsonl" "$out/agreement-$device.jsonl"
done

for profile in quick full; do
	"$program" run pipelines/imdb.toml --profile $profile --runs-dir "$out/runs" --set device=cuda --json \
		> "$out/imdb-$profile.json"
done
