#!/usr/bin/env bash
# The first process of a node, in its own network, mount, UTS and PID namespaces. Killing it ends every process and
# mount of the node at once, as a power switch does. Usage: node.sh NAME HOME BINARIES SHARED
set -eu
name=$1 home=$2 binaries=$3 shared=$4

mount --make-rprivate /
hostname "$name"
mkdir -p "$home/var/lib" "$home/var/log" "$home/var/tmp"
mount --bind "$home/var" /var
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/shared /run/containerd
mount --bind "$shared" /mnt/shared

keep() {  # restart a daemon that ends, as systemd would
  local log=$home/$1.log
  shift
  while :; do "$@" >>"$log" 2>&1 || true; sleep 0.5; done
}
export PATH="$binaries:$PATH"
keep containerd "$binaries/containerd" --config "$home/containerd.toml" &
keep kube-proxy "$binaries/kube-proxy" --config "$home/kube-proxy.yaml" &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done
keep kubelet "$binaries/kubelet" --config "$home/kubelet.yaml" --kubeconfig "$home/kubeconfig" \
  --hostname-override "$name" --node-ip "$(cat "$home/address")" &
wait
