#!/usr/bin/env bash
# Builds another version in addition to this one and compares the two: `make bench-compare BASE=<git ref>`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/$1/bin/python base=${2:-HEAD~1}
shift 2
commit=$(git rev-parse --verify "$base^{commit}")
folder=$PWD/.bench-base/$commit
if [ ! -e "$folder/.ready" ]; then
  echo "==> Building $base in .bench-base/${commit:0:12} (takes minutes)"
  rm -rf "$folder" && mkdir -p "$folder"
  git archive "$commit" | tar -x -C "$folder"
  "$python" -m venv "$folder/.venv"
  "$folder/.venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$folder/requirements/run.txt"
  (cd "$folder" && .venv/bin/maturin build --quiet --release --locked --interpreter .venv/bin/python --out wheels)
  "$folder/.venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$folder"/wheels/*.whl
  touch "$folder/.ready"
fi
exec "$python" -m benches.compare --base "$folder/.venv/bin/python" "$@"
