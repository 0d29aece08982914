#!/usr/bin/env bash
# Checks what is in deploy/ and .github/ with the tools that read it: `make check-deploy`.
#
# From the locked requirements: zizmor, check-jsonschema, hadolint, kubernetes-validate, shellcheck. By Go or the system,
# where they can be had: actionlint, kustomize, helm, promtool. What cannot be had is printed, again in the last line, and
# fails with STRICT=1 only.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${1:?the folder of the virtual environment programs}" && pwd)
tools=$PWD/target/tools/go
export PATH="$bin:$tools:$PATH"
unchecked=()

step() { printf '==> %s\n' "$*"; }
go_tool() { # NAME MODULE@VERSION: installs it once; false if that is impossible
  command -v "$1" >/dev/null && return
  command -v go >/dev/null && GOBIN=$tools go install "$2" >/dev/null 2>&1
}

step 'workflows, issue forms, dependabot, CITATION'
zizmor --offline --quiet .github
check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
if go_tool actionlint github.com/rhysd/actionlint/cmd/actionlint@v1.7.12; then
  actionlint
else
  unchecked+=('workflows by actionlint (needs Go)')
fi

step 'Containerfile, scripts'
hadolint deploy/container/Containerfile
find benches deploy docs examples requirements rust tests -name '*.sh' -not -path '*/target/*' -not -path '*/node_modules/*' -exec shellcheck .ci/run {} +

step 'compose file'
check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose/compose.yaml

step 'Kubernetes manifests and Helm charts, for 1.29 and the newest version that is known'
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
mkdir "$rendered/all" "$rendered/kubernetes"
if go_tool kustomize sigs.k8s.io/kustomize/kustomize/v5@v5.8.2; then
  for folder in example token-generator; do
    kustomize build "deploy/kubernetes/$folder" >"$rendered/all/kustomize-$folder.yaml"
  done
else
  unchecked+=('Kubernetes manifests by kustomize (needs Go)')
fi
# Building helm takes eight minutes of one core, once: only where it is wanted.
if command -v helm >/dev/null || { [ "${HELM:-}" = build ] && go_tool helm helm.sh/helm/v3/cmd/helm@v3.22.0; }; then
  # Without the links, about which helm says something each time.
  cp -RL deploy/helm "$rendered/helm"
  helm dependency build "$rendered/helm/example" >/dev/null
  for chart in entra-fast example; do
    helm lint --strict --quiet --kube-version 1.29 "$rendered/helm/$chart"
  done
  chart() { # NAME CHART OPTION...
    helm template app-a "$rendered/helm/$2" --namespace team-a --kube-version 1.29 "${@:3}" >"$rendered/all/helm-$1.yaml"
  }
  chart production example
  chart citizens example --set secretName= --set secrets.maskinporten= --set secrets.ansattporten=
  chart development example --values deploy/helm/example/values-development.yaml
  chart defaults entra-fast
  chart generator entra-fast --set tokenGenerator.enabled=true,tokenGenerator.secretName=azure-token-generator
  chart https entra-fast --set emulator.enabled=true,emulator.publicUrl=https://entra.example
  for wrong in tokenGenerator.enabled=true sidecar.workers=0 emulater.enabled=true emulator.publicUrl=entra; do
    if chart wrong entra-fast --set "$wrong" 2>/dev/null; then
      echo "the chart accepts $wrong" >&2
      exit 1
    fi
  done
  for wrong in secrets.maskinportn=x secrets=null,secretName=; do
    if chart wrong example --set "$wrong" 2>/dev/null; then
      echo "the example accepts $wrong" >&2
      exit 1
    fi
  done
  rm "$rendered/all/helm-wrong.yaml"
  if [ -f "$rendered/all/kustomize-example.yaml" ]; then
    python deploy/check_chart.py "$rendered/all/kustomize-example.yaml" "$rendered/all/helm-production.yaml"
  fi
else
  unchecked+=('Helm charts (HELM=build builds helm with Go, which takes minutes)')
fi
if [ -n "$(ls "$rendered/all")" ]; then
  # The operator's kinds are not Kubernetes' own.
  (cd "$rendered/all" && for file in *; do
    awk -v RS='---\n' -v ORS='---\n' '!/apiVersion: monitoring.coreos.com/' "$file" >"../kubernetes/$file"
  done)
  for version in 1.29 1.37; do
    kubernetes-validate --quiet --strict --kubernetes-version "$version" "$rendered"/kubernetes/*.yaml
  done
  operator=github.com/prometheus-operator/prometheus-operator@v0.85.0
  if downloaded=$(go mod download -json "$operator" 2>/dev/null); then
    folder=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$downloaded")
    python deploy/validate_operator_resources.py "$folder/example/prometheus-operator-crd" "$rendered"/all/*.yaml
  else
    unchecked+=('PodMonitor and PrometheusRule by the CRDs of the Prometheus operator (needs Go)')
  fi
fi

step 'alert rules'
if command -v promtool >/dev/null; then
  promtool check rules deploy/monitoring/alerts.yaml >/dev/null
  (cd deploy/monitoring && promtool test rules alerts_test.yaml >/dev/null)
else
  unchecked+=('alert rules by promtool (Debian: apt install prometheus)')
fi

if [ ${#unchecked[@]} -gt 0 ]; then
  printf 'NOT CHECKED: %s\n' "${unchecked[@]}" >&2
  [ -z "${STRICT:-}" ]
fi
