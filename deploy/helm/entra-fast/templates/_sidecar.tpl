{{/*
The sidecar for the pods of another chart, which has this one as a dependency named `entra-fast`:

    metadata: {labels: {entra-fast: sidecar}}     # the PodMonitor finds it by this label
    spec:
      terminationGracePeriodSeconds: 45
      initContainers:
        {{- include "entra-fast.sidecar" (dict "root" $ "application" "dev-gcp:team-a:app-a" "secrets" $secrets) | nindent 8 }}
      containers:
        - name: application
          env:
            {{- include "entra-fast.endpoints" $ | nindent 12 }}
      volumes:
        {{- include "entra-fast.volumes" (dict "root" $ "secretName" "azure-app-a" "secrets" $secrets) | nindent 8 }}

`application` names it to the local Entra ID, and is needed with that only; `secretName` is the secret with the AZURE_*
settings. `secrets` are those of the other providers that the application uses, by `maskinporten`, `tokenx`, `idporten` and
`ansattporten`, the same in both places: (dict "tokenx" "tokenx-app-a"). At least one secret is needed without the local Entra
ID, which has the settings of all providers itself.
*/}}

{{/* The switch and the directory of each provider beside Entra ID. */}}
{{- define "entra-fast.providers" -}}
maskinporten: {switch: MASKINPORTEN_ENABLED, directory: maskinporten}
tokenx: {switch: TOKEN_X_ENABLED, directory: jwker}
idporten: {switch: IDPORTEN_ENABLED, directory: idporten}
ansattporten: {switch: ANSATTPORTEN_ENABLED, directory: ansattporten}
{{- end -}}

{{/* The secrets of those that an application uses, in JSON: none with the local Entra ID. */}}
{{- define "entra-fast.secrets" -}}
{{- $known := include "entra-fast.providers" . | fromYaml -}}
{{- range $name, $_ := .secrets }}
{{- if not (hasKey $known $name) }}{{ fail (printf "entra-fast: secrets: %s is none of %s" $name (keys $known | sortAlpha | join ", ")) }}{{ end -}}
{{- end -}}
{{- $used := dict -}}
{{- range $name, $_ := $known }}
{{- if and (get ($.secrets | default dict) $name) (not $.values.emulator.enabled) }}{{ $_ := set $used $name (get $.secrets $name) }}{{ end -}}
{{- end -}}
{{- toJson $used -}}
{{- end -}}

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
{{ include "entra-fast.sidecarContainer" (dict "root" $root "image" $image "secrets" .secrets) }}
{{- end -}}

{{- define "entra-fast.sidecarContainer" -}}
{{- $sidecar := .root.Values.sidecar -}}
{{- $providers := include "entra-fast.providers" . | fromYaml -}}
{{- $secrets := include "entra-fast.secrets" (dict "values" .root.Values "secrets" .secrets) | fromJson -}}
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
    {{- range $name, $_ := $secrets }}
    - {name: {{ (get $providers $name).switch }}, value: "true"}
    {{- end }}
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
    {{- range $name, $_ := $secrets }}
    - {name: {{ $name }}, mountPath: /var/run/secrets/nais.io/{{ (get $providers $name).directory }}, readOnly: true}
    {{- end }}
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
{{- $secrets := include "entra-fast.secrets" (dict "values" $own.Values "secrets" .secrets) | fromJson -}}
- name: azure
{{- if $own.Values.emulator.enabled }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- else if or .secretName (not $secrets) }}
  secret: {secretName: {{ required "entra-fast.volumes: without the emulator, `secretName` or `secrets` is required" .secretName }}}
{{- else }}
  emptyDir: {}
{{- end }}
{{- range $name, $secret := $secrets }}
- name: {{ $name }}
  secret: {secretName: {{ $secret }}}
{{- end }}
{{- end -}}
