#!/usr/bin/env bash
# Resolve each extra of pyproject.toml into requirements/, with hashes and without a registry's address.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
  uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 "$@"
}
compile() {
  local out=requirements/$1.txt; shift
  lock "${@/#/--extra=}" pyproject.toml -o "$out"
}
compile operator operator
# At the versions of the operator's, so that what tests run is what the image has.
lock -c requirements/operator.txt --extra app pyproject.toml -o requirements/app.txt
compile trainer trainer
compile serve trainer serve
lock --override requirements/evaluation.override.txt --extra operator --extra app --extra trainer --extra evaluation --extra dev \
  pyproject.toml -o requirements/dev.txt
# The trainer's image on CPU: torch first, then everything else; see cpu.override.txt for what stays out of it.
lock --override requirements/cpu.override.txt --extra trainer pyproject.toml requirements/serve-cpu.in \
  -o requirements/serve-cpu.txt
echo "torch==2.13.0" | lock --override requirements/cpu.override.txt -c requirements/serve-cpu.txt - \
  -o requirements/torch-cpu.txt
# A layer of its own on top of either accelerator's libraries; see evaluation.override.txt for what stays out of it.
lock --override requirements/evaluation.override.txt -c requirements/serve-cpu.txt --extra evaluation pyproject.toml \
  -o requirements/evaluation.txt
lock -c requirements/serve-cpu.txt requirements/build.in -o requirements/build.txt
lock requirements/trackers.in -o requirements/trackers.txt
lock -c requirements/trackers.txt requirements/mlflow-server.in -o requirements/mlflow-server.txt
lock requirements/scan.in -o requirements/scan.txt
lock --no-deps requirements/demo.in -o requirements/demo.txt
lock --no-deps requirements/kernels.in -o requirements/kernels.txt
lock --no-deps requirements/chroma.in -o requirements/chroma.txt
lock -c requirements/app.txt requirements/clients.in -o requirements/clients.txt
