#!/bin/sh
# Drop headers and the tests of the largest packages. vLLM's kernels for AVX2 stay: not every node has AVX-512.
set -eu
cd /opt/venv/lib/python3.11/site-packages
rm -rf torch/include pyarrow/include pyarrow/src
for package in pandas pyarrow numba sympy numpy networkx scipy transformers mpmath; do
  [ -d "$package" ] && find "$package" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
done
find . -name '*.a' -delete
find . -name __pycache__ -type d -prune -exec rm -rf {} +
