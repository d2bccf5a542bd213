# make pipeline DATASET=imdb   the whole way
# make test, make lint         what CI runs; make test-slow: what takes minutes; make fuzz: what takes hours
# make test-cuda               the CUDA path without a GPU; make dist-cuda: for a machine with one and no network
# make interop                a bundle read by pyarrow, pandas, polars, DuckDB, datasets and mlcroissant
# make interop-model          an exported model in transformers and PEFT
# make browser                the report in Chromium; PAGE=FILE.html opens that one
# make bench, make bench-peers, make bench-peers-training  timings: ours, beside Python's accountants, beside PyTorch's

SHELL := /bin/bash
DATASET ?= imdb
# Outside the clone, so that a second clone starts warm.
CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dpsynth/target
export CARGO_TARGET_DIR

# CUDA=1 or CUDA=0 decides; else a driver on this machine does.
CUDA ?= $(if $(wildcard /proc/driver/nvidia/version /dev/nvidia0),1,0)
FEATURES := $(if $(filter 1,$(CUDA)),--features cuda)
PROGRAM := $(CARGO_TARGET_DIR)/release/dpsynth

.PHONY: help build pipeline test test-slow test-cuda smoke-cuda dist-cuda fuzz interop interop-model browser lint bench bench-peers bench-peers-training check-cuda

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST)) | head -7

build:
	cargo build --release --locked $(FEATURES)

# MODEL names another model: an asset, ./folder, file.gguf or ORG/NAME on the hub.
# ARGS passes flags on: make pipeline DATASET=imdb ARGS="--profile full --set finetune.epsilon=3"
pipeline: build
	$(PROGRAM) run pipelines/$(DATASET).toml $(if $(filter command,$(firstword $(origin MODEL))),--set 'model=$(MODEL)') $(ARGS)

# The same build profile as `make pipeline`: the heavy dependencies compile once. The documentation's examples go first,
# since they hold that sampling and noise cannot be had without a plan (P1), and nextest does not run them.
test:
	cargo test --release --locked --workspace --doc
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --release --locked --workspace --no-fail-fast; \
	else \
		cargo test --release --locked --workspace --no-fail-fast --lib --bins --tests; \
	fi
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/tests/mutants/rustc.sh cargo test --release --locked --lib mutants::

# What takes minutes: CI does not call it.
test-slow:
	cargo test --release --locked --workspace --no-fail-fast --tests -- --ignored --nocapture slow_

# Files of models, changed at random and read: FUZZ_SECONDS for each kind of file. FUZZ_SEED=… FUZZ_SECONDS=0.001 repeats one.
FUZZ_SECONDS ?= 3600
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --release --locked --test it fuzz:: -- --nocapture

# The report in a browser; PAGE=FILE.html opens that one. Installs Chromium where it can and it is missing.
browser: build
	NODE_FOLDER=$(dir $(CARGO_TARGET_DIR))browser tests/browser/run.sh $(PROGRAM)

# What others read of a bundle. The readers are installed once; no network after that.
READERS := $(dir $(CARGO_TARGET_DIR))readers
interop: build
	test -x $(READERS)/bin/python || python3 -m venv $(READERS)
	$(READERS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/interop/requirements.txt
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		tests/interop/bundle.sh $(PROGRAM) "$$folder/bundle" && \
		HF_HOME="$$folder/hf" HF_HUB_OFFLINE=1 $(READERS)/bin/python tests/interop/check.py "$$folder/bundle"

TOOLS := $(dir $(CARGO_TARGET_DIR))tools

# cargo-deny is built once, beside cargo's target folder, where the machine has none.
lint:
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	PATH="$$PATH:$(TOOLS)/bin"; cargo deny --version >/dev/null 2>&1 \
		|| CARGO_TARGET_DIR=$(TOOLS)/target cargo install --quiet --locked --root $(TOOLS) cargo-deny@0.20.2; \
		cargo deny --locked --log-level error check licenses bans sources

# The program as it is built for a GPU, autotune and all, and its tests: compiled and linted.
check-cuda:
	cargo clippy --release --locked --workspace --all-targets --features cuda -- -D warnings

# The CUDA path on a device made of a CPU: tests/cuda/README.md. CUDA_TESTS picks among the tests that run on it.
CUDA_TESTS ?= /^(cuda|models|parity|gpt2|fused|full|training|qlora)::/
test-cuda:
	tests/cuda/run.sh python3 tests/cuda/selftest.py
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/cuda/run.sh DPSYNTH_TEST_DEVICE=cuda \
		cargo nextest run --release --locked --features cuda-plain --no-fail-fast --run-ignored all \
		-E 'binary(it) & test($(CUDA_TESTS)) - test(/slow_/)'

# A minute of it: what the device plays, and a product by the program.
smoke-cuda:
	tests/cuda/run.sh python3 tests/cuda/selftest.py
	cargo build --release --locked --features cuda-plain
	cp $(PROGRAM) $(dir $(CARGO_TARGET_DIR))dpsynth-cuda-plain
	tests/cuda/run.sh $(dir $(CARGO_TARGET_DIR))dpsynth-cuda-plain doctor | grep '^cuda *works'

# What a machine with a GPU, CUDA and no network needs for its first figures: parts of less than 64 MiB.
dist-cuda:
	cargo build --release --locked --features cuda
	benches/dist.sh $(PROGRAM) $(dir $(CARGO_TARGET_DIR))dist-cuda

# A few minutes on two cores. SmolLM2-135M's shape with random weights: no model and no dataset are needed.
bench: build
	cargo bench --locked --profile release $(FEATURES) --bench accountant --bench noise
	$(PROGRAM) bench train --records 32
	$(PROGRAM) bench train --records 64 --steps 2 --full
	$(PROGRAM) bench sample --records 256 --batch-size 256

# Ours and two Python accountants, side by side. Fails where the peers cannot be installed or compute something else,
# never for being slow.
PEERS := $(dir $(CARGO_TARGET_DIR))peers
bench-peers:
	test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
	bench=$$(cargo bench --locked --profile release --bench accountant --no-run --message-format=json-render-diagnostics \
		| sed -n 's|.*"executable":"\([^"]*/accountant-[^"]*\)".*|\1|p') && $(PEERS)/bin/python benches/peers/accountants.py "$$bench"

# Ours, PyTorch, Opacus and transformers on the same model and shapes. ARGS passes flags on: ARGS="--only lora --rounds 3"
TORCH := $(dir $(CARGO_TARGET_DIR))peers-training
bench-peers-training: build
	test -x $(TORCH)/bin/python || python3 -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check -r benches/peers/training-requirements.txt
	$(TORCH)/bin/python benches/peers/compare.py $(PROGRAM) $(ARGS)

# An exported model in transformers and PEFT beside our own logits: RUN=runs/imdb-quick, or a tiny run made for it. CI does
# not call it: torch is large. tests/it/export.rs holds the same against what transformers and PEFT said once.
interop-model: build
	cargo build --release --locked $(FEATURES) --example next_token
	test -x $(TORCH)/bin/python || python3 -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check -r benches/peers/training-requirements.txt
	$(TORCH)/bin/python tests/interop/model.py $(PROGRAM) $(CARGO_TARGET_DIR)/release/examples/next_token $(RUN)
