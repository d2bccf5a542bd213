#!/bin/sh
# A RUSTC_WORKSPACE_WRAPPER: builds this workspace's crates with `--cfg mutants`, beside the ordinary ones.
exec "$@" --cfg mutants
