#!/bin/sh
# Drop headers, other CPUs' kernels and the tests of the largest packages.
set -eu
cd /opt/venv/lib/python3.11/site-packages
rm -rf torch/include pyarrow/include pyarrow/src vllm/_C_AVX2.abi3.so
for package in pandas pyarrow numba sympy numpy networkx scipy transformers mpmath; do
  [ -d "$package" ] && find "$package" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
done
find . -name '*.a' -delete
find . -name __pycache__ -type d -prune -exec rm -rf {} +
