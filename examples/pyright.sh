#!/usr/bin/env bash
# Checks the examples with pyright, as editors do: `make check-python`.
# pyright is a program for Node.js. The package in requirements/dev.txt pins its version and fetches it from the npm
# registry at the first run. Where that is not possible, this says so and passes; with STRICT=1 it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1
if ! problem=$(timeout 120 "$bin/pyright" --version 2>&1); then
  printf '%s\n' "$problem" | tail -n 3 >&2
  echo '==> NOT CHECKED: pyright cannot run here, so the types of examples/ were not checked with it (needs Node.js and the npm registry)' >&2
  [ "${STRICT:-}" != 1 ]
  exit
fi
"$bin/pyright" --pythonpath "$bin/python"
