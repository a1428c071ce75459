#!/usr/bin/env bash
# Look at the chart as Helm renders it: as it is by default, and with all that is off. checkov.sh HELM
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(tools/environment.sh --scan)
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
render() { "$helm" template llm-operator charts/llm-operator --api-versions monitoring.coreos.com/v1 --namespace llm-operator --kube-version 1.36.0 "${@:2}" > "$rendered/$1.yaml"; }
helm=$1
render default
render all --set networkPolicy.enabled=true,monitoring.enabled=true,admissionPolicies.enabled=true
for manifests in default all; do
  "$environment/bin/checkov" --config-file .checkov.yaml --file "$rendered/$manifests.yaml"
done
