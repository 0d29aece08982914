#!/usr/bin/env bash
# Checks what is in deploy/ and .github/ with the tools that read it: `make check-deploy`.
#
# From the locked requirements: zizmor, check-jsonschema, hadolint, kubernetes-validate, shellcheck. By Go or the system,
# where they can be had: actionlint, kustomize, promtool. What cannot be had is printed, again in the last line, and
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
find benches deploy examples requirements rust tests -name '*.sh' -not -path '*/target/*' -exec shellcheck .ci/run {} +

step 'Kubernetes manifests, for 1.29 and the newest version that is known'
if go_tool kustomize sigs.k8s.io/kustomize/kustomize/v5@v5.8.2; then
  rendered=$(mktemp -d)
  trap 'rm -rf "$rendered"' EXIT
  for folder in example token-generator; do
    kustomize build "deploy/kubernetes/$folder" >"$rendered/$folder.yaml"
  done
  # The schema of a PodMonitor is that of the Prometheus operator, not of Kubernetes.
  sed -i '/^apiVersion: monitoring.coreos.com/,$d' "$rendered/example.yaml"
  for version in 1.29 1.37; do
    kubernetes-validate --quiet --strict --kubernetes-version "$version" "$rendered"/*.yaml
  done
else
  unchecked+=('Kubernetes manifests by kustomize (needs Go)')
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
