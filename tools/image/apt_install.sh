#!/bin/sh
# Install Debian packages. Where APT_SNAPSHOT is the address of a snapshot of Debian's archive they come from there alone.
set -eu
if [ -n "${APT_SNAPSHOT:-}" ]; then
  . /etc/os-release
  rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
  # A snapshot's signature is as old as the snapshot; it is checked all the same.
  echo "deb [check-valid-until=no] $APT_SNAPSHOT $VERSION_CODENAME main" > /etc/apt/sources.list
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
