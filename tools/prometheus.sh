#!/usr/bin/env bash
# Take Prometheus and promtool out of Debian's package, once, without installing it as a service, and print their folder.
set -euo pipefail
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
if ! version=$(apt-cache show --no-all-versions prometheus 2>/dev/null | sed -n 's/^Version: //p') || [ -z "$version" ]; then
  apt-get update -qq >&2
  version=$(apt-cache show --no-all-versions prometheus | sed -n 's/^Version: //p')
fi
folder=$cache/prometheus-$version
if [ ! -e "$folder/complete" ]; then
  echo "unpacking Prometheus $version" >&2
  rm -rf "$folder"
  mkdir -p "$folder/package"
  cd "$folder/package"
  # checked by apt against the signed list of the archive; as root, because the folder is ours
  apt-get -o APT::Sandbox::User=root download -qq prometheus >&2 || { apt-get update -qq >&2; apt-get -o APT::Sandbox::User=root download -qq prometheus >&2; }
  dpkg -x ./*.deb . && mv usr/bin/prometheus usr/bin/promtool "$folder/"
  cd "$folder" && rm -rf package && touch complete
fi
echo "$folder"
