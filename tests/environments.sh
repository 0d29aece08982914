#!/usr/bin/env bash
# Installs the wheel into clean virtual environments, and checks there that the library works: `make
# test-environments`. Each environment is what a service may have beside it: nothing, an old or a new aiohttp, a
# uvloop that the sidecar does not support, the sidecar, everything.
set -euo pipefail
cd "$(dirname "$0")/.."
maturin=${1:?the path of maturin}
python=${2:?the path of the interpreter}

# ENVIRONMENT | what is installed beside the wheel | what must be there (see environments/check.py)
ENVIRONMENTS=(
  "library        |                                |"
  "aiohttp-3.9    | aiohttp==3.9.*                 | aiohttp=3.9"
  "aiohttp-3.11   | aiohttp==3.11.*                | aiohttp=3.11"
  "aiohttp-3.14   | aiohttp==3.14.*                | aiohttp=3.14"
  "uvloop-0.23    | uvloop==0.23.*                 | uvloop=0.23"
  "both           | aiohttp==3.14.* uvloop==0.23.* | aiohttp=3.14 uvloop=0.23"
  "[server]       |                                | aiohttp=3.14 uvloop=0.22 prometheus-client="
  "[dev]          |                                | aiohttp=3.14 uvloop=0.22 jinja2= pydantic="
)

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$maturin" build --quiet --release --locked --interpreter "$python" --out "$folder/wheels"
wheel=$(echo "$folder"/wheels/*.whl)
failed=()
for row in "${ENVIRONMENTS[@]}"; do
  IFS='|' read -r name packages expected <<< "$row"
  name=${name// /}
  extra=$([[ $name == \[* ]] && echo "$name" || true)
  venv=$folder/venv
  "$python" -m venv --clear --without-pip "$venv"
  # shellcheck disable=SC2086 # several words
  "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check "$wheel$extra" $packages
  # Away from the sources, so that nothing but the installed package can be imported.
  # shellcheck disable=SC2086
  if (cd "$folder" && "$venv/bin/python" -I "$OLDPWD/tests/environments/check.py" $expected); then
    echo "==> $name: the library works"
  else
    failed+=("$name")
  fi
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "The library does not work with: ${failed[*]}"
  exit 1
fi
echo "The library works in ${#ENVIRONMENTS[@]} environments"
