#!/usr/bin/env bash
# install.sh FOLDER: NVRTC and CUDA's headers from pinned wheels, and the software device, into FOLDER. Once; again
# where something of it changed.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
folder=$(mkdir -p "$1" && realpath "$1")
. "$here/flags.sh"
# Kernels would die of an unknown instruction, without a word.
for needed in avx2 fma; do
	if ! grep -qw "$needed" "${CPUINFO:-/proc/cpuinfo}"; then
		echo "install.sh: kernels are compiled for AVX2 and FMA, and this processor has no $needed" >&2
		exit 1
	fi
done
# One at a time: tests begin many at once.
exec 9> "$folder/lock" && flock 9

wheels=(nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85)
if [[ $(cat "$folder/wheels.txt" 2>/dev/null) != "${wheels[*]}" ]]; then
	rm -rf "$folder/wheels"
	PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/wheels" "${wheels[@]}"
	echo "${wheels[*]}" > "$folder/wheels.txt"
fi

# Kernels of another device are not this one's: its sources are in the name of their folder.
version=$(cat "$folder/wheels.txt" "$here"/driver/* "$here"/device/* "$here"/*.{py,sh} | sha256sum | head -c 16)
built=$folder/$version
if [[ ! -e $built/ready ]]; then
	mkdir -p "$built/kernels"
	warnings=(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
	for part in device memory streams launch tensor_map; do
		gcc -std=gnu11 -O2 "${warnings[@]}" -fPIC -fvisibility=hidden -c -o "$built/$part.o" "$here/driver/$part.c"
	done
	g++ -std=c++17 -O2 "${warnings[@]}" -fPIC -c -o "$built/threads.o" "$here/device/threads.cpp"
	g++ -shared -Wl,-soname,libcuda.so.1 -o "$built/libcuda.so.1" "$built"/*.o -lpthread -ldl
	ln -sf libcuda.so.1 "$built/libcuda.so"
	gcc -std=gnu11 -O2 "${warnings[@]}" -fPIC -fvisibility=hidden -shared -o "$built/libnvrtc.so" \
		"$here/driver/nvrtc.c" -lpthread -ldl
	# The headers are read once for all kernels.
	g++ "${kernel_flags[@]}" -x c++-header -I "$folder/wheels/nvidia/cu13/include" -o "$built/device.h.gch" "$here/device/device.h"
	touch "$built/ready"
fi
echo "$built"
