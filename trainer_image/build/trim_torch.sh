#!/bin/sh
# Drop from torch and the CUDA packages what only a GPU opens at run time, or a C++ build needs.
set -eu
cd /opt/venv/lib/python3.11/site-packages
rm -f nvidia/cudnn/lib/libcudnn_*.so.9  # opened by libcudnn.so.9 on first use of a GPU
rm -f nvidia/cu13/lib/libnvrtc.alt.so.13 nvidia/cu13/lib/libnvrtc-builtins*.so.* nvidia/cu13/lib/libnvperf_*.so \
  nvidia/cu13/lib/libcufftw.so.* nvidia/cu13/lib/libnvblas.so.* nvidia/cu13/lib/libpcsamplingutil.so \
  nvidia/cu13/lib/libcheckpoint.so nvidia/nvshmem/lib/nvshmem_transport_* nvidia/nvshmem/lib/nvshmem_bootstrap_*
rm -f torch/lib/libtorch_cuda_linalg.so torch/lib/libcaffe2_nvrtc.so
rm -rf nvidia/*/include nvidia/cu13/bin nvidia/nvshmem/bin
find nvidia torch \( -name '*.a' -o -name '*.bc' \) -delete
find . -name __pycache__ -type d -prune -exec rm -rf {} +
