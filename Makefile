# make pipeline DATASET=imdb   the whole way
# make test, make lint         what CI runs
# make bench                   timings

SHELL := /bin/bash
DATASET ?= imdb
# Outside the clone, so that a second clone starts warm.
CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dpsynth/target
export CARGO_TARGET_DIR

# CUDA=1 or CUDA=0 decides; else a driver on this machine does.
CUDA ?= $(if $(wildcard /proc/driver/nvidia/version /dev/nvidia0),1,0)
FEATURES := $(if $(filter 1,$(CUDA)),--features cuda)
PROGRAM := $(CARGO_TARGET_DIR)/release/dpsynth

.PHONY: help build pipeline test test-slow lint bench check-cuda

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST)) | head -3

build:
	cargo build --release --locked $(FEATURES)

# ARGS passes flags on: make pipeline DATASET=imdb ARGS="--profile full --set finetune.epsilon=3"
pipeline: build
	$(PROGRAM) run pipelines/$(DATASET).toml $(ARGS)

# The same build profile as `make pipeline`: the heavy dependencies compile once.
test:
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --release --locked --no-fail-fast; \
	else \
		cargo test --release --locked --no-fail-fast; \
	fi

lint:
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings

check-cuda:
	cargo check --release --locked --features cuda

bench:
	cargo bench --locked --profile release --bench accountant
