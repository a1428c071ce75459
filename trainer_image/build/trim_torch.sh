#!/bin/sh
# Drop from torch what only a GPU opens at run time, or a C++ build needs.
set -eu
cd /opt/venv/lib/python3.11/site-packages
rm -f torch/lib/libtorch_cuda_linalg.so torch/lib/libcaffe2_nvrtc.so
find torch \( -name '*.a' -o -name '*.bc' \) -delete
find . -name __pycache__ -type d -prune -exec rm -rf {} +
