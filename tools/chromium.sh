#!/usr/bin/env bash
# Take headless Chromium and the libraries that this machine lacks out of Debian's packages, once, without installing them,
# and print the folder. `run` in it starts the browser.
set -euo pipefail
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}
package=chromium-headless-shell
version_of() { apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Version: //p'; }
if ! version=$(version_of) || [ -z "$version" ]; then
  apt-get update -qq >&2
  version=$(version_of)
fi
folder=$cache/chromium-$version
if [ ! -e "$folder/complete" ]; then
  echo "unpacking Chromium $version" >&2
  rm -rf "$folder"
  mkdir -p "$folder/packages"
  cd "$folder/packages"
  missing() { apt-get --simulate --no-install-recommends install "$package" fonts-dejavu-core | sed -n 's/^Inst \([^ ]*\).*/\1/p'; }
  # checked by apt against the signed list of the archive; as root, because the folder is ours
  get() { missing | xargs apt-get -o APT::Sandbox::User=root download -qq >&2; }
  get || { apt-get update -qq >&2; get; }
  for each in ./*.deb; do dpkg -x "$each" ..; done
  cd "$folder" && rm -rf packages
  cat > run <<'RUN'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$here/usr/lib/$(uname -m)-linux-gnu
export LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio"
exec "$here/usr/lib/chromium/chromium-headless-shell" "$@"
RUN
  chmod +x run && touch complete
fi
echo "$folder"
