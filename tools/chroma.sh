#!/usr/bin/env bash
# Install the server of Chroma that tests ask, once, into a folder of its own, and print the folder.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
folder=$cache/chroma-$(sha256sum "$top/requirements/chroma.txt" | cut -c1-12)
if [ ! -e "$folder/complete" ]; then
  echo "installing Chroma" >&2
  rm -rf "$folder"
  venv=$("$top/tools/environment.sh")
  "$venv/bin/uv" pip install -q --python "$venv/bin/python" --target "$folder" --no-deps --require-hashes -r "$top/requirements/chroma.txt" >&2
  touch "$folder/complete"
fi
echo "$folder"
