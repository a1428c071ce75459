#!/usr/bin/env bash
# Install what requirements/NAME.txt has, once, into a folder of its own, and print the folder: libraries that tests use and that
# the development environment doesn't hold, as they want other versions of the same (trackers, mlflow-server, clients) or less (chroma).
set -euo pipefail
name=$1
top=$(cd "$(dirname "$0")/.." && pwd)
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
lock=$top/requirements/$name.txt
folder=$cache/$name-$(sha256sum "$lock" | cut -c1-12)
if [ ! -e "$folder/complete" ]; then
  echo "installing $name" >&2
  rm -rf "$folder"
  venv=$("$top/tools/environment.sh")
  env -u UV_PYTHON -u PYTHONDONTWRITEBYTECODE "$venv/bin/uv" pip install -q --compile-bytecode --python "$venv/bin/python" --target "$folder" --no-deps --require-hashes -r "$lock" >&2
  touch "$folder/complete"
fi
echo "$folder"
