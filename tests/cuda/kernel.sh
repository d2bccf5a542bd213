#!/usr/bin/env bash
# kernel.sh FOLDER HASH NAME: makes FOLDER/HASH.so of the kernel NAME in FOLDER/HASH.cu. The driver calls it.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
. "$here/flags.sh"
stem=$1/$2
draft=$stem.$$
trap 'rm -f "$draft".*' EXIT

python3 "$here/translate.py" "$stem.cu" "$3" > "$draft.cpp"
# The kernels' threads and shared memory are the driver's: one set for all kernels.
if ! g++ "${kernel_flags[@]}" -shared -I "$DEVICE_BUILT" -I "$here/device" -I "$CUDA_PATH/include" -o "$draft.so" "$draft.cpp" \
	-L "$DEVICE_BUILT" -l:libcuda.so.1 2> "$draft.log"; then
	cp "$draft.log" "$stem.g++.log"
	cp "$draft.cpp" "$stem.cpp"
	head -n 20 "$draft.log"
	exit 1
fi
mv "$draft.so" "$stem.so"
