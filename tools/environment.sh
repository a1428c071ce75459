#!/usr/bin/env bash
# Make a Python environment and print its folder: that of development, or with --scan the one of what `make lint` and
# `make scan` look at manifests and locks with. Nothing is done when it is there already; with --check the exit status says
# whether that of development is. Needs root on a Debian machine for missing packages; one that has them needs none.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
table=$top/trainer_image/build/transformers_table.py
build=$top/requirements/build.txt
kind=venv
lock=$top/requirements/dev.txt
if [ "${1:-}" = --scan ]; then
  kind=scan
  lock=$top/requirements/scan.txt
fi
key=$(cat "$lock" "$build" "$table" "$0" | sha256sum | cut -c1-12)
venv=$cache/$kind-$key
if [ "${1:-}" = --check ]; then
  [ -e "$venv/complete" ]
  exit
fi

mkdir -p "$cache"
exec 9>"$cache/$kind.lock"
flock 9  # two at once would remove what the other installs; whoever waited finds it complete

# python3-dev and g++: DeepSpeed compiles its shared-memory all-reduce on first use.
missing=()
for package in g++ python3-dev python3-venv ca-certificates git; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >&2
fi

if [ ! -e "$venv/complete" ]; then
  echo "making the Python environment $kind-$key" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q --require-hashes -r "$build" >&2
  # Hash-checked, and all that the lock has: what evaluation.override.txt leaves out stays out. The project itself is found
  # by PYTHONPATH, so that an edit needs no install. With bytecode, as in the image: each process of a test would compile
  # torch and the others again where Python is told to write none.
  env -u UV_PYTHON -u PYTHONDONTWRITEBYTECODE "$venv/bin/uv" pip install --compile-bytecode --python "$venv/bin/python" --no-deps --require-hashes -r "$lock" >&2
  [ $kind = scan ] || "$venv/bin/python" "$table" >&2  # as in the image
  touch "$venv/complete"
  find "$cache" -maxdepth 1 -name "$kind-*" ! -name "$kind-$key" -mtime +7 -exec rm -rf {} +
fi
echo "$venv"
