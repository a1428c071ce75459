{{/* The Helm release that an object of the cluster belongs to: "name in namespace"; empty for none. */}}
{{- define "llm-operator.owner" -}}
{{- $annotations := dig "metadata" "annotations" dict . }}
{{- with index $annotations "meta.helm.sh/release-name" }}{{ . }} in {{ index $annotations "meta.helm.sh/release-namespace" }}{{ end }}
{{- end }}

{{- define "llm-operator.self" -}}
{{ .Release.Name }} in {{ .Release.Namespace }}
{{- end }}

{{/*
Two operators must not serve one namespace. The role by which a namespace is served has the same name in every release, so
that Helm refuses the second of them; what follows also sees one release for all namespaces beside one for some.
*/}}
{{- define "llm-operator.refuse-second-operator" -}}
{{- $self := include "llm-operator.self" . }}
{{- $role := include "llm-operator.role" . }}
{{- $found := dict }}
{{- if or (not .Values.namespaces) .Values.crds.install .Values.rbac.aggregateClusterRoles }} {{- /* else one may not look */}}
{{- $found = lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" $role }}
{{- end }}
{{- $owner := include "llm-operator.owner" $found }}
{{- if and $found (ne $owner $self) }}
{{- fail (printf "all namespaces are served already, by the release %s: two operators must not serve one training; set namespaces in both, or uninstall one (found ClusterRole %s)" ($owner | default "of something else than Helm") $role) }}
{{- end }}
{{- $roles := list }}
{{- if .Values.namespaces }}
{{- range .Values.namespaces }}
{{- with lookup "rbac.authorization.k8s.io/v1" "Role" . $role }}{{ $roles = append $roles . }}{{ end }}
{{- end }}
{{- else }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "Role" "" "").items }}
{{- if eq .metadata.name $role }}{{ $roles = append $roles . }}{{ end }}
{{- end }}
{{- end }}
{{- range $roles }}
{{- $owner := include "llm-operator.owner" . }}
{{- if ne $owner $self }}
{{- fail (printf "namespace %s is served already, by the release %s: two operators must not serve one training; set other namespaces, or uninstall one (found Role %s)" .metadata.namespace ($owner | default "of something else than Helm") $role) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables of the operator that the chart writes, and the value to set instead. A test compares them with its settings. */}}
{{- define "llm-operator.variables" -}}
TRAINER_IMAGE: trainerImage
SERVING_IMAGE: servingImage
APP_IMAGE: appImage
CHILD_IMAGE_PULL_SECRETS: childImagePullSecrets
NETWORK_POLICIES: networkPolicies
NAMESPACES: namespaces
GPU_RESOURCES: gpuResources
OTHER_RESOURCES: otherResources
PROGRESS_INTERVAL_SECONDS: settings.progress_interval_seconds
WORKERS: settings.workers
RESYNC_SECONDS: settings.resync_seconds
WATCH_SECONDS: settings.watch_seconds
REQUEST_SECONDS: settings.request_seconds
LEASE_SECONDS: settings.lease_seconds
SURGE_TIMEOUT_SECONDS: settings.surge_timeout_seconds
ROLLOUT_INTERVAL_SECONDS: settings.rollout_interval_seconds
LOG_LEVEL: settings.log_level
METRICS_PORT: none, it is fixed
PROBE_PORT: none, it is fixed
LEASE_NAME: none, it is the release's name
POD_NAME: none, it is the pod's
POD_NAMESPACE: none, it is the pod's
{{- end }}

{{- define "llm-operator.refuse-our-variables" -}}
{{- $ours := include "llm-operator.variables" . | fromYaml }}
{{- range $variable := .Values.extraEnv }}
{{- with index $ours $variable.name }}
{{- fail (printf "extraEnv: %s is written by the chart; the value for it: %s" $variable.name .) }}
{{- end }}
{{- end }}
{{- end }}
