{{/*
The sidecar for the pods of another chart, which has this one as a dependency named `entra-fast`:

    metadata: {labels: {entra-fast: sidecar}}     # the PodMonitor finds it by this label
    spec:
      terminationGracePeriodSeconds: 45
      initContainers:
        {{- include "entra-fast.sidecar" (dict "root" $ "application" "dev-gcp:team-a:app-a") | nindent 8 }}
      containers:
        - name: application
          env:
            {{- include "entra-fast.endpoints" $ | nindent 12 }}
      volumes:
        {{- include "entra-fast.volumes" (dict "root" $ "secretName" "azure-app-a") | nindent 8 }}

`application` names it to the local Entra ID, and is needed with that only; `secretName` is the secret with the AZURE_*
settings, and is needed without it.
*/}}

{{/* This chart's own part of the parent's context: its values, under the parent's release. */}}
{{- define "entra-fast.own" -}}
{{- $own := index .Subcharts "entra-fast" -}}
{{- if not $own }}{{ fail "the chart entra-fast must be a dependency, under that name" }}{{ end -}}
{{- toYaml (dict "Values" (omit $own.Values "global") "Version" $own.Chart.AppVersion) -}}
{{- end -}}

{{- define "entra-fast.sidecar" -}}
{{- $own := include "entra-fast.own" .root | fromYaml -}}
{{- $values := $own.Values -}}
{{- $root := dict "Values" $values "Release" .root.Release "Chart" .root.Chart -}}
{{- $image := include "entra-fast.image" (dict "values" $values "version" $own.Version) -}}
{{- if $values.emulator.enabled }}
{{- $application := required "entra-fast.sidecar: with the emulator, `application` (cluster:namespace:name) is required" .application }}
{{ include "entra-fast.settingsContainer" (dict "root" $root "image" $image "application" $application) }}
{{- end }}
{{ include "entra-fast.sidecarContainer" (dict "root" $root "image" $image) }}
{{- end -}}

{{- define "entra-fast.sidecarContainer" -}}
{{- $sidecar := .root.Values.sidecar -}}
# A native sidecar: it starts before the application, and ends after it.
- name: entra-fast
  image: {{ .image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: [serve]
  restartPolicy: Always
  ports:
    - {name: entra-probes, containerPort: 7165}
  env:
    - {name: BIND_ADDRESS, value: "127.0.0.1:7164"}
    - {name: PROBE_BIND_ADDRESS, value: "0.0.0.0:7165"}
    {{- if gt (int $sidecar.workers) 1 }}
    - {name: ENTRA_FAST_WORKERS, value: {{ $sidecar.workers | quote }}}
    {{- end }}
    {{- with include "entra-fast.insecureHost" .root }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- range $name, $value := $sidecar.env }}
    - {name: {{ $name }}, value: {{ $value | quote }}}
    {{- end }}
  {{- if or .root.Values.redis.enabled .root.Values.redis.secretName }}
  envFrom:
    - secretRef: {name: {{ include "entra-fast.redisSecret" .root }}}
  {{- end }}
  volumeMounts:
    - {name: azure, mountPath: /var/run/secrets/nais.io/azure, readOnly: true}
  startupProbe:
    httpGet: {path: /healthz, port: entra-probes}
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    httpGet: {path: /healthz, port: entra-probes}
    periodSeconds: 10
    failureThreshold: 3
  resources:
    {{- toYaml $sidecar.resources | nindent 4 }}
  securityContext:
    {{- include "entra-fast.securityContext" . | nindent 4 }}
{{- end -}}

{{- define "entra-fast.endpoints" -}}
- {name: NAIS_TOKEN_ENDPOINT, value: "http://127.0.0.1:7164/api/v1/token"}
- {name: NAIS_TOKEN_EXCHANGE_ENDPOINT, value: "http://127.0.0.1:7164/api/v1/token/exchange"}
- {name: NAIS_TOKEN_INTROSPECTION_ENDPOINT, value: "http://127.0.0.1:7164/api/v1/introspect"}
{{- end -}}

{{- define "entra-fast.volumes" -}}
{{- $own := include "entra-fast.own" .root | fromYaml -}}
- name: azure
{{- if $own.Values.emulator.enabled }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- else }}
  secret: {secretName: {{ required "entra-fast.volumes: without the emulator, `secretName` is required" .secretName }}}
{{- end }}
{{- end -}}
