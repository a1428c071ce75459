{{/*
A resource definition is one for the whole cluster, and outlives the release that made it. It is a part of this release if
it is missing, was made by this release, or differs from the chart's: then Helm refuses it by name, and takes it over with
--take-ownership. One of another release, or of kubectl, that is the same is left as it is. `helm template` sees no cluster.
Takes the root and the definition's text.
*/}}
{{- define "llm-operator.crd" -}}
{{- $root := index . 0 }}
{{- $text := index . 1 }}
{{- if $root.Values.crds.install }}
{{- $wanted := fromYaml $text }}
{{- $name := $wanted.metadata.name }}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name }}
{{- $ours := eq (include "llm-operator.owner" $found) (include "llm-operator.self" $root) }}
{{- $same := eq (dig "spec" "versions" list $found | toJson) ($wanted.spec.versions | toJson) }}
{{- $version := dig "metadata" "annotations" "llm-operator.io/chart" "" $found }}
{{- if and $version (not $ours) (not $same) (lt ((semver $root.Chart.Version).Compare (semver $version)) 0) }}
{{- fail (printf "%s is of chart %s, which is newer than this one, %s: take that version of the chart, or set crds.install to false" $name $version $root.Chart.Version) }}
{{- end }}
{{- if or $ours (not $same) }}
{{ $text }}
{{- end }}
{{- end }}
{{- end }}
