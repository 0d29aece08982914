#!/usr/bin/env bash
# Runs the library's tests on every CPython that this machine has: `make test-interpreters`.
#
# Each interpreter gets a virtual environment (.venv-3.x) and an extension of its own, built in Cargo's dev profile:
# the tests are about behaviour, and a build in release mode takes minutes. Rust objects are shared in target/.
set -euo pipefail
cd "$(dirname "$0")/.."
maturin=${1:?the path of maturin}

TESTS=(tests/unit/test_validate*.py tests/unit/test_jwks.py tests/unit/test_signing.py tests/unit/test_signatures.py tests/unit/test_sub_interpreters.py tests/hardening tests/properties)

interpreters() { # the path of one interpreter for each minor version from 3.11, oldest first
  local minor candidate
  for minor in $(seq 11 20); do
    for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python3; do
      # A shim of pyenv can be on PATH although no version is selected that it would run.
      if "$candidate" -c "import sys; sys.exit(sys.version_info[:2] != (3, $minor) or sys.implementation.name != 'cpython')" 2>/dev/null; then
        command -v "$candidate"
        break
      fi
    done
  done
}

prepare() { # INTERPRETER VENV: the locked tools, installed again when they change
  if [ ! -e "$2/.ready" ] || [ requirements/dev.txt -nt "$2/.ready" ]; then
    "$1" -m venv --clear "$2"
    "$2/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
    touch "$2/.ready"
  fi
}

mapfile -t found < <(interpreters)
[ "${#found[@]}" -gt 0 ] || { echo 'found no CPython from 3.11 on'; exit 1; }
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
failed=()
for python in "${found[@]}"; do
  version=$("$python" -c 'import platform; print(platform.python_version())')
  venv=.venv-${version%.*}
  echo "==> CPython $version"
  prepare "$python" "$venv"
  "$maturin" build --quiet --locked --interpreter "$venv/bin/python" --out "$wheels/$version"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheels/$version"/*.whl
  "$venv/bin/python" -m pytest --quiet -p no:cacheprovider "${TESTS[@]}" || failed+=("$version")
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "The library's tests failed on CPython ${failed[*]}"
  exit 1
fi
echo "The library's tests passed on ${#found[@]} interpreters"
