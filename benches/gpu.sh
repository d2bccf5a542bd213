#!/usr/bin/env bash
# The numbers of one NVIDIA GPU that docs/results.md keeps open, in at most ten minutes.
#
# Build first, where there is Rust: make CUDA=1 build
# Then, where there is the GPU:     benches/gpu.sh path/to/dpsynth OUTPUT_FOLDER
# The models and IMDb must be in reach: HF_HOME, DPSYNTH_CACHE; see data/README.md for machines without internet.
# Each part has a limit of its own and stands for itself; what failed is listed at the end and decides the exit code.
# PEERS_PYTHON names a Python with benches/peers/training-requirements.txt; without one the peers are left out.
# With a python3 that has PyTorch, the part torch times PyTorch alone at the same shapes.
# PARTS picks parts of "bench agreement torch peers quick full": PARTS=full gives the full profile the ten minutes alone.
set -euo pipefail

program=$(realpath "${1:?the program, built with CUDA=1}")
out=$(mkdir -p "${2:?a folder for the reports}" && realpath "$2")
cd "$(dirname "$0")/.."
export DPSYNTH_LEDGERS="$out/ledgers"
parts=" ${PARTS:-bench agreement torch peers quick full} "
deadline=$((SECONDS + ${LIMIT:-590}))
failed=()

# limited SECONDS NAME COMMAND…: no longer than that, nor beyond the ten minutes; standard output into NAME.
limited() {
	local seconds=$1 name=$2 left=$((deadline - SECONDS))
	shift 2
	((left < seconds)) && seconds=$left
	if ((seconds < 1)) || ! timeout -k 5 "$seconds" "$@" > "$out/$name" 2> "$out/$name.log"; then
		failed+=("$name")
		echo "failed: $name ($(tail -n 1 "$out/$name.log" 2>/dev/null))"
		return
	fi
	echo "done at $SECONDS s: $name"
}

wanted() { [[ $parts == *" $1 "* ]]; }

# Where there is no card, such as on the software device, the rest can be rehearsed.
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/machine.csv" || true
limited 60 doctor.json "$program" doctor --json

if wanted bench; then
	shapes=(--device cuda --records 256 --tokens 300 --micro-batch-size 32)
	for dtype in f32 bf16; do
		limited 60 "train-lora-$dtype.json" "$program" bench train "${shapes[@]}" --dtype $dtype --json
		limited 60 "train-full-$dtype.json" "$program" bench train "${shapes[@]}" --dtype $dtype --full --json
		limited 60 "sample-$dtype.json" "$program" bench sample --device cuda --dtype $dtype --records 1024 \
			--tokens 300 --batch-size 256 --json
	done
fi

# The same seeded run on both devices: losses, norms and adapters are to agree. Marked NOT PRIVATE, as it should be.
if wanted agreement; then
	for arm in cpu-f32 cuda-f32 cuda-bf16; do
		limited 90 "agreement-$arm.json" "$program" run pipelines/imdb.toml --profile quick --runs-dir "$out/runs" --json \
			--set name="agreement-$arm" --set device="${arm%-*}" --set finetune.precision="${arm#*-}" \
			--set finetune.seed=1 --set finetune.steps=2 --set finetune.expected_batch_size=16 --set sample.records=16 \
			--set evaluate.encoder=false
		cp "$out/runs/agreement-$arm-quick/internal/training.jsonl" "$out/agreement-$arm.jsonl" || true
	done
fi

if wanted torch && python3 -c 'import torch' 2> /dev/null; then
	for dtype in f32 bf16; do
		for mode in plain private sample; do
			limited 60 "torch-$mode-$dtype.json" python3 benches/peers/torch_only.py $mode --device "${DEVICE:-cuda}" \
				--dtype $dtype --records 256 --tokens 300 --micro-batch-size 32
		done
	done
fi

if wanted peers && [[ -n ${PEERS_PYTHON:-} ]]; then
	for dtype in f32 bf16; do
		limited 180 "peers-$dtype.txt" "$PEERS_PYTHON" benches/peers/compare.py "$program" --device cuda --dtype $dtype \
			--records 256 --tokens 300 --micro-batch-size 32
	done
fi

for profile in quick full; do
	if wanted $profile; then
		limited 590 "imdb-$profile.json" "$program" run pipelines/imdb.toml --profile $profile --runs-dir "$out/runs" \
			--set device=cuda --json
	fi
done

if ((${#failed[@]})); then
	echo "failed: ${failed[*]}"
	exit 1
fi
