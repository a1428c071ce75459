#!/usr/bin/env bash
# Install what spec.tracking speaks by, once, into a folder as the image has it, and print the folder.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
folder=$cache/trackers-$(sha256sum "$top/requirements/trackers.txt" | cut -c1-12)
if [ ! -e "$folder/complete" ]; then
  echo "installing the trackers' libraries" >&2
  rm -rf "$folder"
  venv=$("$top/tools/environment.sh")
  "$venv/bin/uv" pip install -q --python "$venv/bin/python" --target "$folder" --require-hashes -r "$top/requirements/trackers.txt" >&2
  touch "$folder/complete"
fi
echo "$folder"
