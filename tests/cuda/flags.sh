# How kernels are compiled for this processor, and the headers that are read once for all of them: the same for both, or
# g++ does not take the headers. No product and sum are joined that the kernel does not join itself.
kernel_flags=(-std=c++17 -O2 -mavx2 -mfma -w -fpermissive -fno-strict-aliasing -ffp-contract=off -fPIC -fvisibility=hidden)
