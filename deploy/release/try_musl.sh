#!/usr/bin/env bash
# Verifies a token with a wheel for musl: VERSION WHEEL. In a container of Alpine, where there is an engine; else with
# MUSL_PYTHON, an interpreter that is linked against musl. Ends with status 3 where there is neither, for a wheel of
# another processor, and where the interpreter has another version.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) version=$1 wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
case $wheel in *_"$(uname -m)".whl) ;; *) exit 3 ;; esac
if docker info >/dev/null 2>&1; then
  docker run --rm --volume "$here:/try:ro" --volume "$(dirname "$wheel"):/wheels:ro" "python:$version-alpine" sh -c \
    'pip install --quiet --disable-pip-version-check --root-user-action ignore "/wheels/$1" && exec python /try/try_wheel.py' \
    sh "$(basename "$wheel")"
  exit
fi
[ "$("${MUSL_PYTHON:-false}" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ] || exit 3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m zipfile -e "$wheel" site
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --implementation cp \
  --platform "musllinux_1_2_$(uname -m)" --python-version "$version" --dest packages orjson
python3 -m zipfile -e packages/*.whl site
PYTHONPATH=$folder/site "$MUSL_PYTHON" "$here/try_wheel.py"
