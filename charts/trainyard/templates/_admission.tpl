{{/* What the admission policies have in common. Their CEL keeps to what Kubernetes 1.30 knows. */}}

{{/*
The spec of a run, or all that a schedule or a sweep makes runs of: its template, and each variant's patch over it. Whatever stands in
a run that it makes stands in one of them, so each is judged by itself; what a sweep varies names nothing that is judged. `at` is the field's name, for messages.
*/}}
{{- define "trainyard.admission.specs" -}}
request.kind.kind == 'TrainingRun'
  ? [{'at': dyn('spec'), 'is': dyn(object).spec}]
  : [{'at': dyn('spec.template.spec'), 'is': dyn(object).spec.template.spec}]
    + dyn(object).spec.?variants.orValue([]).map(v, {'at': dyn('spec.variants[' + v.name + '].patch'), 'is': v.?patch.orValue({})})
{{- end -}}

{{/*
A write is judged when it changes what pods may come of it. Who only pauses a run, lets it go on or gives it more time needs
no right to what its author named; nor does a write of labels.
*/}}
{{- define "trainyard.admission.changed" -}}
request.operation == 'CREATE' || (request.kind.kind == 'TrainingRun'
  ? (dyn(object).spec.map(k, k) + dyn(oldObject).spec.map(k, k)).exists(k,
      !(k in ['suspend', 'cost', 'backoffLimit', 'activeDeadlineSeconds', 'ttlSecondsAfterFinished'])
      && dyn(object).spec[?k] != dyn(oldObject).spec[?k])
  : ['template', 'variants', 'triggers'].exists(k, dyn(object).spec[?k] != dyn(oldObject).spec[?k])
    || dyn(object).metadata.?annotations[?'trainyard.dev/run-now-overrides']
      != dyn(oldObject).metadata.?annotations[?'trainyard.dev/run-now-overrides'])
{{- end -}}

{{- define "trainyard.admission.constraints" -}}
resourceRules:
- apiGroups: [trainyard.dev]
  apiVersions: ["*"]
  operations: [CREATE, UPDATE]
  resources: [trainingruns, trainingschedules, trainingsweeps]
{{- end -}}

{{/* A policy alone does nothing. Arguments: root, name. */}}
{{- define "trainyard.admission.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "trainyard.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
  {{- with .root.Values.watchNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values:
          {{- toYaml . | nindent 10 }}
  {{- end }}
{{- end -}}

{{/*
CEL: what stands below a node, as a list of at most one value. What is not a mapping has nothing below it: parts of a pod and
patches are free, and an error of CEL's would tell nobody anything. Arguments: the node, field...
*/}}
{{- define "trainyard.admission.below" -}}
[{{ first . }}]{{ range rest . }}.map(m, type(m) == map && '{{ . }}' in m, m['{{ . }}']){{ end }}
{{- end -}}

{{/* CEL: the name of an item of a list, as far as it has one. Argument: the item. */}}
{{- define "trainyard.admission.name" -}}
{{ include "trainyard.admission.below" (list . "name") }}.filter(n, type(n) == string).join('')
{{- end -}}

{{/* What the operator makes of a schedule or a sweep was judged when somebody wrote that. */}}
{{- define "trainyard.admission.conditions" -}}
- name: not-the-operator
  expression: request.userInfo.username != 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "trainyard.serviceAccountName" . }}'
- name: it-has-changed
  expression: |-
    {{- include "trainyard.admission.changed" . | nindent 4 }}
{{- end -}}

{{/*
Overrides of a single start are JSON in an annotation, which CEL cannot read. Whether a key stands in it can be seen, unless
it is written with escapes. Argument: the keys.
*/}}
{{- define "trainyard.admission.overrides" -}}
[request.kind.kind == 'TrainingSchedule' ? dyn(object).metadata.?annotations[?'trainyard.dev/run-now-overrides'].orValue('') : '']
  .all(o, !(o.contains('\\'){{ range . }} || o.contains('{{ . }}'){{ end }}))
{{- end -}}
