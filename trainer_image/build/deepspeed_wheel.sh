#!/bin/sh
# /wheels/deepspeed-*.whl with the shared-memory all-reduce compiled in, from the lock's source.
set -eu
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt UV_LINK_MODE=copy
cd /opt/build
sh pinned.sh serve-cpu.txt einops hjson msgpack ninja packaging psutil py-cpuinfo pydantic pydantic-core typing-inspection \
  annotated-types tqdm > needs.txt
sh pinned.sh build.txt pip wheel >> needs.txt
sh pinned.sh serve-cpu.txt deepspeed > deepspeed.txt
/opt/uv/bin/uv pip install -q --no-cache --no-deps --require-hashes -r needs.txt
DS_ACCELERATOR=cpu DS_BUILD_OPS=0 DS_BUILD_SHM_COMM=1 SETUPTOOLS_USE_DISTUTILS=stdlib \
  python -m pip wheel --no-cache-dir -q --no-deps --no-build-isolation --require-hashes -w /wheels -r deepspeed.txt
