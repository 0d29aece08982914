#!/usr/bin/env bash
# Builds another version in addition to this one and compares the two: `make bench-compare BASE=<git ref>`.
# Both are installed from wheels into virtual environments that hold the locked dependencies and nothing else:
# packages that happen to lie beside only one of them would count as its start-up time.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/$1/bin/python base=${2:-HEAD~1}
shift 2

environment() { # FOLDER: a virtual environment with what the sources in FOLDER need
  "$python" -m venv "$1/.venv"
  "$1/.venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$1/requirements/run.txt"
}
install() { # SOURCES FOLDER: builds SOURCES and installs the wheel in FOLDER/.venv
  rm -rf "$2/wheels"
  (cd "$1" && "$python" -m maturin build --quiet --release --locked --interpreter "$2/.venv/bin/python" --out "$2/wheels")
  "$2/.venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$2"/wheels/*.whl
}

commit=$(git rev-parse --verify "$base^{commit}")
folder=$PWD/.bench-base/$commit new=$PWD/.bench-base/new
if [ ! -e "$folder/.ready" ]; then
  echo "==> Building $base in .bench-base/${commit:0:12} (takes minutes)"
  rm -rf "$folder" && mkdir -p "$folder"
  git archive "$commit" | tar -x -C "$folder"
  environment "$folder"
  install "$folder" "$folder"
  touch "$folder/.ready"
fi
if ! cmp --quiet requirements/run.txt "$new/requirements/run.txt"; then
  rm -rf "$new" && mkdir -p "$new/requirements"
  cp requirements/run.txt "$new/requirements"
  environment "$new"
fi
install "$PWD" "$new"
exec "$python" -m benches.compare --base "$folder/.venv/bin/python" --new "$new/.venv/bin/python" "$@"
