#!/usr/bin/env bash
# Installs a wheel into an empty virtual environment and verifies a token with it: INTERPRETER WHEEL.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) interpreter=$1 wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$interpreter" -m venv "$folder/venv"
programs=$folder/venv/bin
[ -d "$programs" ] || programs=$folder/venv/Scripts # Windows
"$programs/python" -m pip install --quiet --disable-pip-version-check "$wheel"
cd "$folder" # not the checkout: what is imported must be what was installed
"$programs/python" "$here/try_wheel.py"
