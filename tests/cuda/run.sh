#!/usr/bin/env bash
# run.sh COMMAND…: with the software device in place of a GPU. DEVICE_FOLDER is where install.sh put it.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
folder=${DEVICE_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/dpsynth/cuda}
DEVICE_BUILT=$("$here/install.sh" "$folder")
export DEVICE_BUILT DEVICE_HOME=$here DEVICE_KERNELS=${DEVICE_KERNELS:-$DEVICE_BUILT/kernels}
export CUDA_PATH=$folder/wheels/nvidia/cu13
export REAL_NVRTC=$CUDA_PATH/lib/libnvrtc.so.13
export LD_LIBRARY_PATH=$DEVICE_BUILT:$CUDA_PATH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
mkdir -p "$DEVICE_KERNELS"
exec "$@"
