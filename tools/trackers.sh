#!/usr/bin/env bash
# Install what spec.tracking speaks by, once, into a folder as the image has it, and print the folder. With --server what a server
# of MLflow is made of, for the tests.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
name=trackers
[ "${1:-}" = --server ] && name=mlflow-server
lock=$top/requirements/$name.txt
folder=$cache/$name-$(sha256sum "$lock" | cut -c1-12)
if [ ! -e "$folder/complete" ]; then
  echo "installing $name" >&2
  rm -rf "$folder"
  venv=$("$top/tools/environment.sh")
  "$venv/bin/uv" pip install -q --python "$venv/bin/python" --compile-bytecode --target "$folder" --require-hashes -r "$lock" >&2
  touch "$folder/complete"
fi
echo "$folder"
