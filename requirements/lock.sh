#!/usr/bin/env bash
# Regenerates the locked requirements from pyproject.toml: `make lock`.
# run.txt is what `make dev` needs (the package's dependencies and the builder), dev.txt the tools on top, release.txt
# what builds wheels, example.txt what the example services need, deploy.txt what checks deploy/, docs.txt what builds
# the documentation site, image.txt what the container image holds, peers.txt what `make bench-peers` compares with,
# clients.txt what `make clients` needs on top of dev.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${1:-uv}
compile() { "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@"; }
compile --extra dev --group build --output-file requirements/run.txt
compile --extra dev --group build --group test --group check --group bench --constraint requirements/run.txt --output-file requirements/dev.txt
compile --extra dev --extra fastapi --extra django --extra httpx --group example --constraint requirements/run.txt --output-file requirements/example.txt
compile --group release --no-emit-package entra-fast --constraint requirements/run.txt --output-file requirements/release.txt
compile --group clients --no-emit-package entra-fast --constraint requirements/dev.txt --output-file requirements/clients.txt
compile --extra dev --group peers --no-emit-package entra-fast --constraint requirements/run.txt --output-file requirements/peers.txt
compile --group deploy --no-emit-package entra-fast --output-file requirements/deploy.txt
compile --group docs --no-emit-package entra-fast --output-file requirements/docs.txt
compile --extra server --extra dev --extra redis --extra otel --constraint requirements/run.txt --output-file requirements/image.txt
