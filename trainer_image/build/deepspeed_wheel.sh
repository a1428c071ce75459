#!/bin/sh
# /wheels/deepspeed-*.whl with the shared-memory all-reduce compiled in, at the version of the lock.
set -eu
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt UV_LINK_MODE=copy
needs='einops|hjson|msgpack|ninja|packaging|psutil|py-cpuinfo|pydantic|pydantic-core|typing-inspection|annotated-types|tqdm'
cd /opt/build
grep -oE "^($needs)==[^ ]+" serve-cpu.txt > needs.txt
/opt/uv/bin/uv pip install -q --no-cache --no-deps -r needs.txt pip wheel
DS_ACCELERATOR=cpu DS_BUILD_OPS=0 DS_BUILD_SHM_COMM=1 SETUPTOOLS_USE_DISTUTILS=stdlib \
  python -m pip wheel --no-cache-dir -q --no-deps --no-build-isolation -w /wheels "$(grep -oE '^deepspeed==[^ ]+' serve-cpu.txt)"
