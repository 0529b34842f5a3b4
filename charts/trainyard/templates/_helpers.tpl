{{- define "trainyard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "trainyard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "trainyard.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "trainyard.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trainyard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "trainyard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trainyard.labels" -}}
{{ include "trainyard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "trainyard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trainyard.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* repository@digest, or repository:tag. Arguments: image, chart. */}}
{{- define "trainyard.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The Service that training pods report to. Its name is fixed, because it stands in a run's environment. */}}
{{- define "trainyard.receiverName" -}}
{{- printf "%s-receiver" (include "trainyard.fullname" .) -}}
{{- end -}}

{{/* Not empty where the datasets' API is reached over the network. */}}
{{- define "trainyard.datasetsServed" -}}
{{- if and .Values.datasets.namespace (eq .Values.datasets.access "Kubernetes") }}yes{{ end -}}
{{- end -}}

{{/* What the operator may do with the objects of a run. Used cluster-wide or once per watched namespace. */}}
{{- define "trainyard.rules" -}}
# Runs are made and cleaned up by schedules, made by the datasets' API, made, suspended and gone on with by sweeps, and never
# changed otherwise.
- apiGroups: [trainyard.dev]
  resources: [trainingruns]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [trainyard.dev]
  resources: [trainingschedules, trainingsweeps]
  verbs: [get, list, watch]
- apiGroups: [trainyard.dev]
  resources: [trainingruns/status, trainingschedules/status, trainingsweeps/status]
  verbs: [update]
# Where admission enforces it, an owner reference that blocks deletion needs this.
- apiGroups: [trainyard.dev]
  resources: [trainingruns/finalizers, trainingschedules/finalizers, trainingsweeps/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# Pods are made by the Jobs, and go with them. One whose trainer has ended beside a container that a cluster has added is
# told to go at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
# Whether anybody listens to the queue that a run names.
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues]
  verbs: [get]
# No delete: a claim goes with its last run through owner references, and never by the operator's own hand.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# Names for the pods of a training that has several.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, delete]
# The run's own Secret (its manifest and token), and a look whether a Secret that a run names exists. No list and no
# watch: the operator cannot find a Secret that no run names.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
# The curves of a run, in a ConfigMap that it owns.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
# Read to tell why a pod waits, written to tell what happens.
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- if .Values.rbac.exports }}
# What exports of the targets configMap and kserve change; admission asks their authors for the same right.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, patch]
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices]
  verbs: [get, patch]
{{- end }}
{{- if .Values.rbac.yieldFrom }}
# Deployments that make room for a training (placement.yieldFrom); admission asks the run's author for the same right.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, patch]
{{- end }}
{{- end -}}
