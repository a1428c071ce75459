{{- define "llm-operator.selector" -}}
app.kubernetes.io/name: llm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llm-operator.labels" -}}
{{ include "llm-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "llm-operator.image" -}}
{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .appVersion }}{{ end }}
{{- end }}

{{- define "llm-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default .Release.Name }}
{{- else }}{{ required "serviceAccount.name: with serviceAccount.create=false name one that exists" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The (Cluster)Role by which a namespace is served, and its binding: the same in every release, see _checks.tpl. */}}
{{- define "llm-operator.role" -}}
llm-operator
{{- end }}

{{/* What the operator may do, and no more: a test compares it with what it does. Apply is patch, and create where nothing is yet. */}}
{{- define "llm-operator.rules" -}}
- apiGroups: [llm-operator.io]
  resources: [llmtrainings, llmservings, llmapps]
  verbs: [list, watch]
- apiGroups: [llm-operator.io]
  resources: [llmtrainings/status, llmservings/status, llmapps/status]
  verbs: [update]
- apiGroups: [""]
  resources: [persistentvolumeclaims, pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch]
{{- if .Values.networkPolicies.enabled }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch, delete]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, list]
{{- end }}
