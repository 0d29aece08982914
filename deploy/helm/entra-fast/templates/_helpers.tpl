{{- define "entra-fast.name" -}}
{{- printf "%s-%s" .root.Release.Name .part | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "entra-fast.selector" -}}
app.kubernetes.io/name: {{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "entra-fast.labels" -}}
{{ include "entra-fast.selector" . }}
app.kubernetes.io/part-of: entra-fast
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "entra-fast.image" -}}
{{- $image := .values.image -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .version) -}}
{{- end -}}

{{/* What every container of ours may do: nothing (Pod Security Standard `restricted`, and a read-only root). */}}
{{- define "entra-fast.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The name of the local Entra ID's Service, as pods of every namespace resolve it. */}}
{{- define "entra-fast.emulatorHost" -}}
{{- printf "%s.%s.svc" (include "entra-fast.name" (dict "root" . "part" "emulator")) .Release.Namespace -}}
{{- end -}}

{{- define "entra-fast.emulatorUrl" -}}
{{- default (printf "http://%s:8080" (include "entra-fast.emulatorHost" .)) .Values.emulator.publicUrl -}}
{{- end -}}

{{/* The token of the local Entra ID's console and admin API, which hand out the secrets of applications. */}}
{{- define "entra-fast.adminSecret" -}}
{{- .Values.emulator.adminSecretName | default (include "entra-fast.name" (dict "root" . "part" "emulator")) -}}
{{- end -}}

{{- define "entra-fast.adminToken" -}}
- name: ADMIN_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ include "entra-fast.adminSecret" . }}, key: token}
{{- end -}}

{{/* An init container that fetches an application's settings from the local Entra ID, as files. */}}
{{- define "entra-fast.settingsContainer" -}}
- name: entra-fast-settings
  image: {{ .image }}
  args:
    - env
    - {{ .application | quote }}
    - --url=http://{{ include "entra-fast.emulatorHost" .root }}:8080
    - --admin-token=$(ADMIN_TOKEN)
    - --format=files
    - --output=/var/run/secrets/nais.io/azure
  env:
    {{- include "entra-fast.adminToken" .root | nindent 4 }}
  volumeMounts:
    - {name: azure, mountPath: /var/run/secrets/nais.io/azure}
  resources:
    requests: {cpu: 10m, memory: 48Mi}
    limits: {memory: 96Mi}
  securityContext:
    {{- include "entra-fast.securityContext" . | nindent 4 }}
{{- end -}}

{{/* The variable that allows plain http to the local Entra ID; nothing where that has https. */}}
{{- define "entra-fast.insecureHost" -}}
{{- if and .Values.emulator.enabled (not .Values.emulator.publicUrl) -}}
- {name: ENTRA_FAST_INSECURE_PROVIDER_HOSTS, value: {{ include "entra-fast.emulatorHost" . | quote }}}
{{- end -}}
{{- end -}}

{{- define "entra-fast.redisSecret" -}}
{{- .Values.redis.secretName | default (include "entra-fast.name" (dict "root" . "part" "redis")) -}}
{{- end -}}
