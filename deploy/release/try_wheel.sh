#!/usr/bin/env bash
# Installs a wheel into an empty virtual environment and verifies a token with it: INTERPRETER WHEEL.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) interpreter=$1 wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$interpreter" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$wheel"
cd "$folder" # not the checkout: what is imported must be what was installed
"$folder/venv/bin/python" "$here/try_wheel.py"
