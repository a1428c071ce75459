#!/usr/bin/env bash
# Build every part of the test cluster from the Go module proxy, once per key; print the folder of the binaries.
# About ten minutes on two cores when nothing is cached. A go.mod with a tool block pins each part.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${LLM_OPERATOR_CACHE:-$HOME/.cache/llm-operator}

missing=()
while read -r package; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done < "$here/packages.txt"
if ((${#missing[@]})); then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >&2
fi

key=$(cat "$0" "$here"/modules/*/go.mod "$here"/pause/* | sha256sum | cut -c1-12)
bin=$cache/cluster-$key
if [ -e "$bin/complete" ]; then
  echo "$bin"
  exit
fi

command -v go > /dev/null || { echo "Go 1.26 or newer is needed to build the test cluster: install it and put it on PATH" >&2; exit 1; }
echo "building the test cluster's binaries (once)" >&2
work=$(mktemp -d)
mkdir -p "$bin/cni"
# Both caches grow to 16 GB in all, so they are ours and go when the binaries are there.
export CGO_ENABLED=0 GOFLAGS=-modcacherw GOCACHE=${CLUSTER_GOCACHE:-$work/build} GOMODCACHE=${CLUSTER_GOMODCACHE:-$work/modules}
trap 'rm -rf "$work"' EXIT

# Kubernetes replaces its staging modules by local folders, so our go.mod pins each to its published version.
version=v1.36.3
stamp="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  # Without gitVersion the server calls itself v0.0.0-master, and helm refuses it.
  stamp+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=36 -X $package.gitTreeState=clean"
  stamp+=" -X $package.buildDate=1970-01-01T00:00:00Z"
done
cp -r "$here/modules/kubernetes" "$work/kubernetes"
(
  cd "$work/kubernetes"
  go mod tidy >&2
  for part in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    go build -trimpath -ldflags "$stamp" -o "$bin/$part" "k8s.io/kubernetes/cmd/$part" >&2
  done
)

part() { # OUTPUT PACKAGE VERSION [TAGS]
  mkdir -p "$work/part/$1"
  (
    cd "$work/part/$1"
    printf 'module example.com/llm-operator/testcluster/%s\n\ngo 1.26.0\n' "$(basename "$1")" > go.mod
    go get -tool "$2@$3" >&2
    go build -trimpath -ldflags "-s -w" ${4:+-tags "$4"} -o "$bin/$1" "$2" >&2
  )
}
slim="no_btrfs no_zfs no_devmapper no_tracing"
for command in containerd containerd-shim-runc-v2 ctr; do
  part $command github.com/containerd/containerd/v2/cmd/$command v2.4.2 "$slim"
done
for plugin in ipam/host-local main/bridge main/loopback; do
  part cni/${plugin#*/} github.com/containernetworking/plugins/plugins/$plugin v1.9.1
done
part etcd go.etcd.io/etcd/server/v3 v3.6.8
part coredns github.com/coredns/coredns v1.14.7
part registry github.com/distribution/distribution/v3/cmd/registry v3.1.2
part helm helm.sh/helm/v3/cmd/helm v3.22.0
(cd "$here/pause" && go build -trimpath -ldflags "-s -w" -o "$bin/pause" .)

touch "$bin/complete"
find "$cache" -maxdepth 1 -name 'cluster-*' ! -name "cluster-$key" -mtime +7 -exec rm -rf {} +
echo "$bin"
